//! `helper`: what reads a service's connections for others that they announce.
#![forbid(unsafe_code)]

use weir_dataplane::Proto;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::helper::Helper;

use super::super::reader::Problems;
use super::super::services::ServiceDraft;

/// The port of FTP's control connections.
const FTP: u16 = 21;

/// Of a `[[service]]`. Left out, it is `"ftp"` for TCP on port 21 with servers that answer through
/// the director, as where LVS's `ip_vs_ftp` is loaded.
pub(in super::super) fn helper(p: &mut Problems<'_>, draft: &ServiceDraft<'_>) -> Helper {
    let section = &draft.section;
    let all: Vec<_> = Helper::ALL.iter().map(|h| (h.name(), *h)).collect();
    let chosen = section.choice(p, "helper", &all, &[]);
    let protocol = draft.protocol.as_ref().map(|p| p.value);
    let mut modes = draft.servers.iter().map(|s| draft.mode_of(s));
    let reads = |mode| matches!(mode, ForwardMode::nat | ForwardMode::fullnat);
    let Some(chosen) = chosen else {
        let port = draft.address.as_ref().and_then(|a| a.value.port());
        let is_ftp = protocol == Some(Proto::Tcp) && port == Some(FTP) && modes.any(reads);
        return if is_ftp { Helper::ftp } else { Helper::none };
    };
    if chosen.value == Helper::none {
        return Helper::none;
    }
    if let Some(protocol) = protocol.filter(|protocol| *protocol != Proto::Tcp) {
        let why = format!(
            "helper = \"ftp\": not for {}; use \"none\", or protocol = \"tcp\"",
            protocol.name()
        );
        section.problem(p, chosen.at, &why);
    } else if let (Some(mode), false) = (modes.clone().next(), modes.any(reads)) {
        let why = format!(
            "helper = \"ftp\": with forward = {:?} data connections pass it by; use \"none\" and \
             persistence, or forward = \"nat\" or \"fullnat\"",
            mode.name()
        );
        section.problem(p, chosen.at, &why);
    }
    chosen.value
}
