//! Numbers for people.
#![forbid(unsafe_code)]

/// `1234567` as `1,234,567`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that leaves one to four digits: `999 B`, `1.5 KiB`, `12.0 GiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 and more would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration in its two largest units: `45 s`, `3 min 5 s`, `2 h 0 min`, `3 d 4 h`.
pub(super) fn duration(seconds: u64) -> String {
    let (s, min, h, d) = (
        seconds % 60,
        seconds / 60 % 60,
        seconds / 3_600 % 24,
        seconds / 86_400,
    );
    match seconds {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{min} min {s} s"),
        3_600..86_400 => format!("{h} h {min} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// A remaining time as `ipvsadm -Lnc` shows it, minutes and seconds: `14:59`.
pub(super) fn clock(seconds: u32) -> String {
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// `n` things: `1 service`, `2 services`.
pub(super) fn count(n: u64, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(n))
}
