//! What every way of forwarding must do: carry all bytes both ways, for the client's own address.

use crate::client;
use crate::families::Family;
use crate::servers::{Nginx, sha256, write_noise};
use crate::topology::Lab;

/// Bytes that go each way: many windows, seconds in a guest.
const SIZE: usize = 2_000_000;

/// Asks server 1 through the VIP of `family`, downloads and uploads some megabytes. The server
/// must have seen the client itself: DR, TUN and NAT hide nobody.
pub(super) fn carries_both_ways(lab: &Lab, nginx: &Nginx, family: Family, title: &str) {
    let vip = family.vip();
    let seen = client::ask_who(lab, vip);
    let client = family.client().to_string();
    assert_eq!(seen, ("rs1".to_owned(), client), "{title}");
    carries_megabytes(lab, nginx, family, title);
}

/// Downloads and uploads some megabytes through the VIP of `family`.
pub(super) fn carries_megabytes(lab: &Lab, nginx: &Nginx, family: Family, title: &str) {
    let vip = family.vip();
    let noise = nginx.files().join("noise");
    write_noise(&noise, SIZE, 5);
    let sent = sha256(&noise);

    let (received, down) = client::download_from(lab, vip, "/files/noise");
    assert_eq!(received, sent, "{title}: download");
    let up = client::upload_to(lab, vip, &noise, "/files/received");
    assert_eq!(
        sha256(&nginx.files().join("received")),
        sent,
        "{title}: upload"
    );
    println!(
        "{title}: {} MB/s down, {} MB/s up",
        down / 1_000_000,
        up / 1_000_000
    );
}
