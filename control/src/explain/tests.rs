use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use weir_dataplane::packet::build::Packet as Made;
use weir_dataplane::packet::tcp::flags::{ACK, PSH, SYN};
use weir_dataplane::service::ServiceKey;

use super::capture::{CaptureError, Captured};
use super::*;
use crate::config::{self, Machine};

pub(crate) const LAB: &str = r#"
[workers]
count = 2

[[port]]
name = "wan0"
device = "net_tap0,iface=wmt0"
addresses = ["10.0.0.2/24", "2001:db8::2/64"]

[[port]]
name = "lan0"
device = "net_tap1,iface=wmt1"
addresses = ["10.1.0.2/24", "2001:db8:1::2/64"]

[[service]]
name = "web"
address = "10.0.0.10:80"
protocol = "tcp"
scheduler = "rr"
local_addresses = ["10.1.0.100"]
[[service.real_server]]
address = "10.1.0.11:8080"
[[service.real_server]]
address = "10.1.0.12:8080"

[[service]]
name = "drained"
address = "10.0.0.10:81"
protocol = "tcp"
local_addresses = ["10.1.0.100"]
[[service.real_server]]
address = "10.1.0.11:8080"
weight = 0

[[service]]
name = "far"
address = "10.0.0.10:53"
protocol = "udp"
forward = "tun"
[[service.real_server]]
address = "198.51.100.7:53"
"#;

pub(crate) fn picture(text: &str) -> Picture {
    let machine = Machine {
        cores: (0..128).collect(),
    };
    let config = config::parse("lab.toml", text, &machine).unwrap();
    Picture::of_config(Path::new("lab.toml"), &config).unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What becomes of the packet that asks for a connection.
fn asked(picture: &Picture, proto: Proto, from: &str, to: &str) -> Packet {
    let packets = [opening(proto, at(from), at(to))];
    let explained = explain(picture, &packets, &Wishes::default()).unwrap();
    let [packet] = explained.packets.try_into().unwrap();
    packet
}

fn captured(ms: u64, packet: &Made) -> Captured {
    let frame = packet.build();
    Captured {
        at: Duration::from_millis(ms),
        length: frame.len() as u32,
        frame,
    }
}

#[test]
fn a_new_connection_is_told_from_the_service_to_the_next_hop() {
    let p = asked(&picture(LAB), Proto::Tcp, "192.0.2.7:40000", "10.0.0.10:80");
    assert_eq!(p.verdict, Verdict::Forwarded, "{p:#?}");
    assert_eq!((&*p.port, p.number), ("wan0", 1));
    let service = p.service.unwrap();
    assert_eq!((&*service.name, &*service.scheduler), ("web", "rr"));
    assert_eq!((service.servers, service.available), (2, 2));
    let server = p.server.unwrap();
    assert_eq!(
        (server.address, &*server.forward),
        (at("10.1.0.11:8080"), "fullnat")
    );
    assert_eq!(
        (server.weight, server.active, server.inactive),
        (Some(1), 0, 0)
    );
    let connection = p.connection.unwrap();
    assert!(connection.opened);
    assert_eq!(connection.client, at("192.0.2.7:40000"));
    assert_eq!(connection.local.ip(), at("10.1.0.100:0").ip());
    assert_eq!(Some(connection.worker), p.owner);
    let hop = p.next_hop.unwrap();
    assert_eq!(hop.port.as_deref(), Some("lan0"));
    assert_eq!(hop.address, Some(at("10.1.0.11:0").ip()));
    assert_eq!(p.out.len(), 1);
    assert_eq!(Some(&p.out[0].mac), hop.mac.as_ref());
    let leaves = format!("tcp {} -> 10.1.0.11:8080 SYN", connection.local);
    assert_eq!((&*p.out[0].port, &*p.out[0].packet), ("lan0", &*leaves));
    assert!(p.out[0].frame.is_empty(), "nobody asked for bytes");
    let counted: Vec<&str> = p.counters.iter().map(|c| &*c.name).collect();
    assert!(
        counted.contains(&"conns_opened") && p.drops.is_empty(),
        "{counted:?}"
    );
}

#[test]
fn what_is_not_forwarded_says_why() {
    let lab = picture(LAB);
    for (proto, from, to, verdict, why) in [
        (
            Proto::Tcp,
            "192.0.2.7:40000",
            "10.0.0.10:81",
            Verdict::Answered,
            "no_server (The service has no real server that may take a connection): 0 of \
             \"drained\"'s 1 have a weight above 0; leaves wan0 as ICMP 10.0.0.10 -> 192.0.2.7 \
             type 3 code 3 about 192.0.2.7:40000 -> 10.0.0.10:81 to 00:00:00:00:00:00",
        ),
        (
            Proto::Udp,
            "192.0.2.7:40000",
            "10.0.0.99:80",
            Verdict::Kernel,
            "10.0.0.99 is no virtual or local address of weir's: the kernel's",
        ),
        (
            Proto::Tcp,
            "10.0.0.10:80",
            "10.0.0.10:80",
            Verdict::Dropped,
            "land (Same source and destination address and port (a land attack))",
        ),
        (
            Proto::Sctp,
            "192.0.2.7:40000",
            "10.0.0.10:80",
            Verdict::Answered,
            "no_connection (For a virtual or local address, but no service and no connection has \
             it): no sctp service has 10.0.0.10:80; leaves wan0 as sctp 10.0.0.10:80 -> \
             192.0.2.7:40000 to 00:00:00:00:00:00",
        ),
    ] {
        let p = asked(&lab, proto, from, to);
        assert_eq!((p.verdict, &*p.why), (verdict, why));
    }
}

/// A daemon's picture: nobody answers but those who are known.
#[test]
fn a_neighbour_that_is_not_known_is_what_is_missing() {
    let mut lab = picture(LAB);
    lab.all_answer = false;
    let p = asked(&lab, Proto::Tcp, "192.0.2.7:40000", "10.0.0.10:80");
    assert_eq!(p.verdict, Verdict::Held);
    assert_eq!(
        p.why,
        "waits for the MAC address of 10.1.0.11 behind lan0, which the kernel is asked for; \
         dropped as neighbour_unresolved if none comes (ip neigh show 10.1.0.11 dev lan0)"
    );
    assert_eq!(p.next_hop.unwrap().mac, None);

    lab.routes.retain(|route| route.len != 0);
    let p = asked(&lab, Proto::Udp, "192.0.2.7:40000", "10.0.0.10:53");
    assert_eq!(p.verdict, Verdict::Dropped);
    assert_eq!(
        p.why,
        "no_route (No route to the next hop): the kernel has none to 198.51.100.7 through weir's \
         ports"
    );
}

#[test]
fn a_capture_is_followed_packet_by_packet() {
    let mut lab = picture(LAB);
    let wan = lab.ports[0].scene.mac;
    let client = Mac([2, 0, 0, 0, 9, 9]);
    let to_web = |flags| Made::tcp(at("192.0.2.7:40000"), at("10.0.0.10:80"), flags);
    let mut cut = captured(3, &to_web(ACK));
    cut.frame.truncate(40);
    let mut giant = captured(4, &to_web(ACK | PSH));
    giant.frame.resize(9000, 0);
    giant.length = 9000;
    let capture = [
        captured(0, &to_web(SYN).macs(client, wan)),
        captured(1, &to_web(ACK).macs(client, Mac([6; 6]))),
        captured(2, &to_web(ACK).macs(wan, client)),
        cut,
        giant,
        captured(1_000_000, &to_web(ACK).macs(client, wan)),
    ];
    let wishes = Wishes {
        frames: true,
        ..Wishes::default()
    };
    let explained = explain(&lab, &capture, &wishes).unwrap();
    let said: Vec<(Verdict, &str)> = explained
        .packets
        .iter()
        .map(|p| (p.verdict, &*p.why))
        .collect();
    use Verdict::{Answered, Forwarded, LeftOut};
    let verdicts: Vec<Verdict> = said.iter().map(|(verdict, _)| *verdict).collect();
    assert_eq!(
        verdicts,
        [Forwarded, Forwarded, LeftOut, LeftOut, LeftOut, Answered],
        "{said:#?}"
    );
    assert_eq!(said[2].1, "sent by weir itself, out of wan0");
    assert!(
        said[3]
            .1
            .starts_with("the capture holds 40 of its 54 bytes"),
        "{}",
        said[3].1
    );
    assert!(
        said[4]
            .1
            .starts_with("9000 bytes, and no port takes more than 1514")
    );
    // The connection ran out in the quarter of an hour before the last packet.
    assert!(
        said[5]
            .1
            .contains("\"web\" is there, and only a SYN opens a connection")
    );
    assert!(!explained.packets[1].connection.as_ref().unwrap().opened);
    let first = &explained.packets[0].out[0];
    assert_eq!(first.frame.len(), 2 * first.length);
    assert!(explained.assumed.iter().any(|a| a.contains("--keep-macs")));

    // As the port would see it, and on a port that was said.
    let strict = Wishes {
        keep_macs: true,
        ..Wishes::default()
    };
    let explained = explain(&lab, &capture[1..2], &strict).unwrap();
    assert!(
        explained.packets[0].why.starts_with("not_our_mac"),
        "{explained:#?}"
    );
    lab.ports[1].scene.mtu = 9000;
    let on_lan = Wishes {
        port: Some("lan0".to_owned()),
        ..Wishes::default()
    };
    let explained = explain(&lab, &capture[..1], &on_lan).unwrap();
    assert_eq!(explained.packets[0].port, "lan0");
    let nowhere = Wishes {
        port: Some("dmz0".to_owned()),
        ..Wishes::default()
    };
    let refused = explain(&lab, &capture[..1], &nowhere).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no port is named \"dmz0\"; there are wan0, lan0"
    );
}

/// Every file that is ready to run forwards what asks for its services, by the workers' own code.
#[test]
fn every_service_of_every_ready_configuration_forwards() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut services = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let picture = picture(&text);
        for service in picture.snapshot.services() {
            let key = service.key;
            let (proto, client, to) = first_asked(&picture, &key);
            let p = asked(&picture, proto, &client, &to);
            let goes = matches!(p.verdict, Verdict::Forwarded | Verdict::Kernel);
            assert!(
                goes && p.connection.is_some(),
                "{}: {to}: {p:#?}",
                path.display()
            );
            services += 1;
        }
    }
    assert!(services > 15, "{services}");
}

/// What a client of the service would ask for first, and where from.
fn first_asked(picture: &Picture, key: &ServiceKey) -> (Proto, String, String) {
    let of = |vip, port| SocketAddr::new(vip, port).to_string();
    let somewhere = match key.is_ipv6() {
        true => "[2001:db8:77::7]:40000",
        false => "198.51.100.77:40000",
    };
    if let ServiceKey::Snat { rule, .. } = *key {
        let pattern = &picture.snapshot.snat().of_pool(rule).unwrap().pattern;
        let mut sources = pattern.sources.iter();
        let source = sources.find(|s| s.is_ipv6() == key.is_ipv6()).unwrap();
        let inside = of(source.addresses().nth(3).unwrap_or(source.first()), 40_000);
        let mut far: SocketAddr = somewhere.parse().unwrap();
        far.set_port(pattern.ports.first().map_or(4711, |ports| ports.first()));
        let proto = pattern.proto.unwrap_or(Proto::Udp);
        return (proto, inside, far.to_string());
    }
    let (proto, to) = first_asked_of(picture, key);
    (proto, somewhere.to_owned(), to)
}

/// The same of a service that clients use.
fn first_asked_of(picture: &Picture, key: &ServiceKey) -> (Proto, String) {
    let of = |vip, port| SocketAddr::new(vip, port).to_string();
    let ServiceKey::Mark { mark, .. } = key else {
        let vip = key.vips().unwrap().first();
        return (key.proto().unwrap(), of(vip, key.port().unwrap_or(4711)));
    };
    let rules = picture.snapshot.marks().rules();
    let rule = rules.iter().find(|rule| rule.mark == Some(*mark)).unwrap();
    let pattern = &rule.pattern;
    let port = pattern.ports.first().map_or(4711, |ports| ports.first());
    let vip = pattern
        .destinations
        .iter()
        .find(|d| d.is_ipv6() == key.is_ipv6());
    (
        pattern.proto.unwrap_or(Proto::Tcp),
        of(vip.unwrap().first(), port),
    )
}

#[test]
fn captures_are_read_as_they_were_written() {
    let frames: Vec<Captured> = (0..3)
        .map(|n| {
            let frame = vec![n as u8; 14 + n as usize];
            Captured {
                at: Duration::new(1_700_000_000 + n, 123_456_789),
                length: frame.len() as u32,
                frame,
            }
        })
        .collect();
    let file = capture::write(frames.iter().map(|f| (f.at, &*f.frame)));
    assert_eq!(capture::read(&file).unwrap(), frames);
    for cut in 0..file.len() {
        // Cut anywhere: what was whole, or an error; never a panic.
        let _ = capture::read(&file[..cut]);
    }
    let mut raw = file.clone();
    raw[20] = 101; // LINKTYPE_RAW
    let refused = capture::read(&raw).unwrap_err();
    assert!(matches!(refused, CaptureError::NotEthernet(_)), "{refused}");
}

/// pcapng, the default of Wireshark's tools: times are in what the interface says, microseconds
/// else.
#[test]
fn pcapng_has_its_own_clock() {
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::{
        InterfaceDescriptionBlock, InterfaceDescriptionOption,
    };
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    for (id, resolution) in [(0, None), (1, Some(9)), (2, Some(0x8a))] {
        let mut interface = InterfaceDescriptionBlock::new(pcap_file::DataLink::ETHERNET, 0);
        let option = resolution.map(InterfaceDescriptionOption::IfTsResol);
        interface.options.extend(option);
        writer.write_pcapng_block(interface).unwrap();
        writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id: id,
                timestamp: Duration::from_nanos(3_000_000), // units, to the library
                original_len: 60,
                data: vec![id as u8; 60].into(),
                options: vec![],
            })
            .unwrap();
    }
    let read = capture::read(&writer.into_inner()).unwrap();
    let times: Vec<u64> = read.iter().map(|f| f.at.as_millis() as u64).collect();
    // 10^-6, 10^-9 and 2^-10 seconds.
    assert_eq!(times, [3_000, 3, 2_929_687]);
}
