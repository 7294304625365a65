//! How a service's servers come and go: `slow_start` and `removal`.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::reader::{Problems, Section};
use super::scalars;
use super::types::{Removal, Turnover};

/// The longest ramp: past it, somebody meant another unit.
const LONGEST_START: Duration = Duration::from_secs(3600);

/// Of a `[[service]]`.
pub(super) fn turnover(p: &mut Problems<'_>, section: &Section<'_>) -> Turnover {
    let slow_start = section.parsed(p, "slow_start", |text| {
        let duration = match text {
            "none" => Duration::ZERO,
            text => scalars::duration(text)?,
        };
        match duration <= LONGEST_START {
            true => Ok(duration),
            false => Err("a ramp lasts an hour at most; use \"30s\"".to_owned()),
        }
    });
    let removal = section.parsed(p, "removal", |text| match text {
        "keep" => Ok(Removal::Keep),
        "now" => Ok(Removal::After(Duration::ZERO)),
        text => match scalars::duration(text) {
            Ok(duration) => Ok(Removal::After(duration)),
            Err(_) => Err("use \"keep\", \"now\", or a time such as \"30s\"".to_owned()),
        },
    });
    Turnover {
        slow_start: slow_start.map_or(Duration::ZERO, |s| s.value),
        removal: removal.map_or(Removal::Keep, |r| r.value),
    }
}
