//! What systemd is told (`Type=notify-reload`, `WatchdogSec=`); nothing when it does not ask.
#![forbid(unsafe_code)]

use std::time::Duration;

use sd_notify::NotifyState;

/// Forwarding; also after a reload, applied or refused.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reading the configuration again.
pub(crate) fn reloading() {
    // sd_notify(3): RELOADING=1 has to come with the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("cannot tell systemd of the reload: {error}"),
    }
}

/// Ending on purpose.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// All workers turn.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is expected, if it is: half of systemd's limit.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}
