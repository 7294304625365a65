//! What the commands that list much have in common: how they ask, and how they end.
#![forbid(unsafe_code)]

use super::number::grouped;

/// The path and query for `limit` things that pass these filters; `None`: no such filter.
pub(super) fn target<const N: usize>(
    path: &str,
    limit: u32,
    filters: [(&str, Option<String>); N],
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    for (key, value) in filters {
        if let Some(value) = value {
            query.append_pair(key, &value);
        }
    }
    format!("{path}?{}", query.finish())
}

/// The line behind a table of `shown` rows that the limit cut off.
pub(super) fn and_more(shown: usize) -> String {
    let shown = grouped(shown as u64);
    format!("... and more: shown are {shown}; see --limit\n")
}
