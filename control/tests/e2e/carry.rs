//! What every way of forwarding must do: carry all bytes both ways.

use crate::client;
use crate::families::Family;
use crate::servers::{Nginx, holds, write_noise};
use crate::topology::Lab;

/// Bytes each way on this machine.
pub(crate) const LARGE: usize = 100_000_000;
/// Bytes each way in a guest: many windows, less than a second.
pub(crate) const SMALL: usize = 1_000_000;

/// Downloads and uploads `size` bytes through the VIP of `family`. The server must see the client
/// itself: DR, TUN and NAT hide nobody. `title` is for messages.
pub(crate) fn carries_for_the_client(
    lab: &Lab,
    nginx: &Nginx,
    family: Family,
    size: usize,
    title: &str,
) {
    let seen = carries(lab, nginx, family, size, title);
    assert_eq!(seen, family.client().to_string(), "{title}");
}

/// Downloads and uploads `size` bytes through the VIP of `family`; whom the server saw.
pub(crate) fn carries(
    lab: &Lab,
    nginx: &Nginx,
    family: Family,
    size: usize,
    title: &str,
) -> String {
    let vip = family.vip();
    let noise = nginx.files().join("noise");
    let sent = write_noise(&noise, size, 5);

    let got = client::download_from(lab, vip, "/files/noise");
    assert!(got.body == sent, "{title}: download");
    let up = client::upload_to(lab, vip, &noise, "/files/received");
    let received = nginx.files().join("received");
    assert!(holds(&received, &sent), "{title}: upload");
    let [down, up] = [got.speed, up].map(|speed| speed / 1_000_000);
    println!("{title}: {down} MB/s down, {up} MB/s up");
    got.seen
}
