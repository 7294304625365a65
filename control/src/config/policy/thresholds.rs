//! How many connections a real server may have: `upper_threshold` and `lower_threshold`, which are
//! ipvsadm's -x and -y.
#![forbid(unsafe_code)]

use weir_dataplane::service::Thresholds;

use super::super::reader::{Problems, Section};

/// The thresholds of a real server.
pub(super) fn thresholds(p: &mut Problems<'_>, server: &Section<'_>) -> Thresholds {
    let mut number = |key| {
        let number = server.integer(p, key, 0..=u32::MAX, " connections (0 is none)");
        number.map_or(0, |n| n.value)
    };
    let (upper, lower) = (number("upper_threshold"), number("lower_threshold"));
    if lower > upper {
        let why = match upper {
            0 => "without an upper_threshold it has no meaning; add one, or remove it".to_owned(),
            upper => format!("above the upper_threshold; use at most {upper}"),
        };
        server.refuse(p, "lower_threshold", &why);
    }
    Thresholds { upper, lower }
}
