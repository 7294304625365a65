//! Words for messages: lists, numbers, quotations, and what a mistyped word meant.
#![forbid(unsafe_code)]

/// One line of at most 60 characters of what was written.
pub(super) fn shortened(written: &str) -> String {
    const LIMIT: usize = 60;
    let line = written.lines().next().unwrap_or_default();
    if line.len() == written.len() && line.chars().count() <= LIMIT {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(LIMIT).collect();
    short.push('…');
    short
}

/// "string" → "a string".
pub(super) fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

/// "a, b, c".
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// "a", "b" or "c", in quotes.
pub(super) fn alternatives<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = words.into_iter().map(|w| format!("{w:?}")).collect();
    let last = quoted.pop().unwrap_or_default();
    match quoted.is_empty() {
        true => last,
        false => format!("{} or {last}", quoted.join(", ")),
    }
}

/// A number as TOML takes it, in groups of three where it is long: 1_000_000.
pub(super) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    if digits.len() < 6 {
        return digits;
    }
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

/// The word that `written` most likely meant: at most a third of it mistyped.
pub(super) fn nearest<'a>(
    written: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).max(1);
    let close = words.into_iter().map(|w| (distance(written, w), w));
    let best = close.min_by_key(|(d, _)| *d)?;
    (best.0 <= limit).then_some(best.1)
}

/// Levenshtein's distance, with a swap of neighbours as one step (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
