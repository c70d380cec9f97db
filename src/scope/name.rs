//! The name of a scope, without an allocation where it is short.
//!
//! Responsible for keeping text. Not responsible for what a scope is called: see `layer`.

use std::fmt;

/// A text that is mostly short: `POST /orders/{id}`.
#[derive(Clone)]
pub(crate) struct Name(Kept);

#[derive(Clone)]
enum Kept {
    /// The first so many of the bytes.
    Here(u8, [u8; Name::SHORT]),
    Elsewhere(Box<str>),
}

impl Name {
    /// Longer ones are allocated; few routes are.
    const SHORT: usize = 46;

    /// The parts, one behind the other.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut here = [0; Self::SHORT];
        let mut len = 0;
        for part in parts {
            match here.get_mut(len..len + part.len()) {
                Some(room) => room.copy_from_slice(part.as_bytes()),
                None => return Self(Kept::Elsewhere(parts.concat().into())),
            }
            len += part.len();
        }
        Self(Kept::Here(len as u8, here))
    }

    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            // Whole texts were copied there.
            Kept::Here(len, bytes) => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
            Kept::Elsewhere(text) => text,
        }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::of(&[text])
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        match text.len() <= Self::SHORT {
            true => Self::of(&[&text]),
            false => Self(Kept::Elsewhere(text.into())),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_kept_as_it_is() {
        for len in [0, 1, Name::SHORT - 1, Name::SHORT, Name::SHORT + 1, 300] {
            let text = "a".repeat(len);
            assert_eq!(Name::from(text.as_str()).as_str(), text);
            assert_eq!(Name::from(text.clone()).as_str(), text);
            assert_eq!(
                Name::of(&["GET", " ", &text]).as_str(),
                format!("GET {text}")
            );
        }
        let odd = "ü".repeat(Name::SHORT / 2);
        assert_eq!(Name::of(&[&odd]).as_str(), odd);
    }
}
