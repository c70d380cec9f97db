//! Names that are nearly another one.
//!
//! Responsible for which known name somebody may have meant. Not responsible for saying so.

use strsim::levenshtein;

/// The known name that is nearest, if it is near enough to have been meant: two letters off, or one in
/// a short name. A known name has none.
pub(super) fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = if name.chars().count() < 8 { 1 } else { 2 };
    let with_distance = known
        .into_iter()
        .map(|known| (levenshtein(name, known), known));
    let (distance, nearest) = with_distance.min_by_key(|(distance, _)| *distance)?;
    (1..=most).contains(&distance).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_near_and_another_word_is_not() {
        let known = ["MAX_CONNECTIONS", "URL", "sslmode", "host"];
        for (name, nearest) in [
            ("MAX_CONNECTION", Some("MAX_CONNECTIONS")),
            ("MAX_CONECTION", Some("MAX_CONNECTIONS")),
            ("URI", Some("URL")),
            ("sslmod", Some("sslmode")),
            ("URL", None),
            ("SSL", None),
            ("schema", None),
            ("", None),
        ] {
            assert_eq!(meant(name, known), nearest, "{name}");
        }
    }
}
