//! `syn_proxy` of a service, and `cookie_secret` of `[defense]`.
#![forbid(unsafe_code)]

use weir_dataplane::Proto;
use weir_dataplane::defense::cookie::SECRET_LEN;
use weir_dataplane::defense::syn_proxy::{Mode, SynProxy};

use super::super::reader::{Key, Problems, Section};
use super::super::services::ServiceDraft;

const KEY: &str = "syn_proxy";
const KEYS: &[Key] = &[
    Key::new("mode", "\"auto\""),
    Key::new("half_open", "8192"),
    Key::new("mss", "1460"),
    Key::new("window_scale", "7"),
    Key::new("unproven", "\"reset\""),
];

/// `"auto"`, or `{ mode = "auto", half_open = 8192 }`.
pub(super) fn syn_proxy(p: &mut Problems<'_>, of: &Section<'_>) -> SynProxy {
    let default = SynProxy::default();
    let modes = Mode::ALL.map(|mode| (mode.name(), mode));
    if of.is_text(KEY) {
        let mode = of.choice(p, KEY, &modes, &[]);
        return SynProxy {
            mode: mode.map_or(default.mode, |m| m.value),
            ..default
        };
    }
    let section = of.table(p, KEY, KEYS);
    if !section.is_absent() && !section.has("mode") {
        section.missing(p, "mode");
    }
    let mut number = |key, range, unit, default| {
        let number = section.integer(p, key, range, unit);
        number.map_or(default, |n| n.value)
    };
    let half_open = number("half_open", 1..=u32::MAX, " connections", default.half_open);
    let mss = number("mss", 216..=9160, " bytes", default.mss.into());
    let scales = SynProxy::WINDOW_SCALES;
    let scales = u32::from(*scales.start())..=u32::from(*scales.end());
    let window_scale = number("window_scale", scales, " bits", default.window_scale.into());
    let answers = [("reset", true), ("drop", false)];
    let unproven = section.choice(p, "unproven", &answers, &[]);
    let mode = section.choice(p, "mode", &modes, &[]);
    SynProxy {
        mode: mode.map_or(default.mode, |m| m.value),
        half_open,
        mss: mss as u16, // in range, checked
        window_scale: window_scale as u8,
        resets: unproven.map_or(default.resets, |u| u.value),
    }
}

/// A SYN proxy needs the answers of every server of its service, and handshakes.
pub(in super::super) fn check(p: &mut Problems<'_>, service: &ServiceDraft<'_>) {
    if service.policy.syn_proxy.is_off() {
        return;
    }
    let section = &service.section;
    let protocol = service.protocol.as_ref().map(|p| p.value);
    if let Some(protocol) = protocol.filter(|protocol| *protocol != Proto::Tcp) {
        let why = format!("{protocol} has no such handshake, only tcp has; use \"off\"");
        return section.refuse(p, KEY, &why);
    }
    let mut modes = service.servers.iter().map(|s| service.mode_of(s));
    let modes = modes.find(|mode| mode.is_one_way());
    if let Some(mode) = modes.or(Some(service.forward).filter(|mode| mode.is_one_way())) {
        let why = format!(
            "with forward = {:?} the real servers' answers do not come through Weir, which must \
             translate their numbers; use \"off\", or forward = \"fullnat\" or \"nat\"",
            mode.name()
        );
        section.refuse(p, KEY, &why);
    }
}

/// A secret in hexadecimal.
pub(in super::super) fn secret(text: &str) -> Result<[u8; SECRET_LEN], String> {
    let digits = 2 * SECRET_LEN;
    let how =
        format!("write {digits} hexadecimal digits, as `openssl rand -hex {SECRET_LEN}` does");
    if let Some(other) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("{other:?} is no hexadecimal digit; {how}"));
    }
    if text.len() != digits {
        return Err(format!("{} digits; {how}", text.len()));
    }
    let mut secret = [0; SECRET_LEN];
    for (at, place) in secret.iter_mut().enumerate() {
        *place = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|e| e.to_string())?;
    }
    match secret.iter().all(|byte| *byte == secret[0]) {
        true => Err(format!("one byte over and over is easily guessed; {how}")),
        false => Ok(secret),
    }
}
