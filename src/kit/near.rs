//! Names that are nearly another one.
//!
//! Responsible for which known name somebody may have meant. Not responsible for saying so.

/// How many letters have to be put in, left out or replaced.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.chars().enumerate() {
        let mut before = above[0];
        above[0] = row + 1;
        for (at, candidate) in other.iter().enumerate() {
            let replaced = before + usize::from(*candidate != letter);
            before = above[at + 1];
            above[at + 1] = replaced.min(before + 1).min(above[at] + 1);
        }
    }
    above[other.len()]
}

/// The known name that is nearest, if it is near enough to have been meant: two letters off, or one in
/// a short name. A known name has none.
pub(super) fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = if name.chars().count() < 8 { 1 } else { 2 };
    let with_distance = known
        .into_iter()
        .map(|known| (distance(name, known), known));
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
