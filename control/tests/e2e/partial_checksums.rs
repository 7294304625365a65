//! AF_PACKET ports on plain veth cables: senders leave TCP and UDP checksums partial there, and
//! `rx_checksum = "fill"` completes them before an incremental update makes them wrong for good.

use crate::books::counter;
use crate::cables::Cable;
use crate::client;
use crate::config::Config;
use crate::servers::{Dns, Nginx, holds, write_noise};
use crate::topology::{Lab, rip};
use crate::weir::Director;

#[test]
fn af_packet_on_veth_carries_tcp_and_udp_both_ways() {
    let Some(lab) = Lab::with_cable(1, Cable::AfPacket) else {
        return;
    };
    let nginx = Nginx::in_all(&lab);
    let _dns = Dns::in_all(&lab);
    let config = Config::new(1).cable(Cable::AfPacket).server(1, 100);
    let weir = Director::start(&lab, &config);
    let noise = nginx[0].files().join("noise");
    let sent = write_noise(&noise, 2_000_000, 4);

    assert!(client::download(&lab, "/files/noise").body == sent);
    client::upload(&lab, &noise, "/files/received");
    assert!(holds(&nginx[0].files().join("received"), &sent));
    assert_eq!(client::ask_dns(&lab, 10), [rip(1).octets(); 10]);
    let filled = counter(&weir.json(&["counters"])["workers"], "checksums_filled");
    assert!(
        filled > 0,
        "no checksum was partial: the cables are not what they should be"
    );
}
