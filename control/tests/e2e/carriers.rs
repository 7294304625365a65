//! The client's address as unmodified servers read it: nginx and haproxy take PROXY headers, and
//! a server that speaks first greets a client that has said nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::client::curl;
use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::modes::fullnat;
use crate::servers::{holds, write_noise};
use crate::topology::{Lab, Process, checked, eventually, find_program, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

const PAIRS: [(Family, Family); 4] = [(V4, V4), (V6, V6), (V6, V4), (V4, V6)];
/// More than any window, so that numbers are shifted far from the start too.
const LARGE: usize = 20 << 20;

fn listens(lab: &Lab, port: u16) {
    eventually(Duration::from_secs(10), "the server listens", || {
        let found = lab.servers[0].run(&format!("ss -Hltn sport = :{port}"));
        (!found.is_empty()).then_some(())
    });
}

/// nginx in server 1 that wants a PROXY header on every connection.
fn proxied_nginx(lab: &Lab) -> Process {
    let dir = lab.dir().join("proxied");
    std::fs::create_dir_all(dir.join("files")).expect("the lab's directory is ours");
    let (conf, at) = (dir.join("nginx.conf"), dir.display());
    let text = format!(
        "daemon off;
master_process off;
pid {at}/pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    server {{
        listen 80 proxy_protocol;
        listen [::]:80 proxy_protocol;
        location / {{
            return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr \
$proxy_protocol_server_port\\n\";
        }}
        location /files/ {{ alias {at}/files/; dav_methods PUT; }}
    }}
}}
"
    );
    std::fs::write(&conf, text).expect("the lab's directory is ours");
    let mut command = lab.servers[0].command("nginx");
    command.arg("-e").arg(dir.join("error.log"));
    let nginx = Process::start("nginx", command.arg("-c").arg(&conf));
    listens(lab, 80);
    nginx
}

/// A configuration with one service on `port` that tells its server by `carrier`.
fn telling(workers: usize, pair: (Family, Family), port: u16, carrier: &str) -> Config {
    let more = format!("{}\nclient_address = \"{carrier}\"", fullnat(pair.1));
    Config::new(workers).service("tcp", pair, port, &more)
}

with_1_2_and_3_workers!(nginx_reads_proxy_headers);

fn nginx_reads_proxy_headers(workers: usize) {
    for (pair, carrier) in PAIRS.into_iter().zip(["proxy-v1", "proxy-v2"].repeat(2)) {
        for carrier in [carrier, other(carrier)] {
            let Some(lab) = Lab::new(1) else { return };
            let _nginx = proxied_nginx(&lab);
            let _weir = Director::start(&lab, &telling(workers, pair, 80, carrier));
            let (vip, client) = (pair.0.vip(), pair.0.client());
            let url = format!("http://{}", SocketAddr::new(vip, 80));

            let mut command = curl(&lab);
            command.args(["-H", "Connection: close"]);
            let said = text(checked(command.arg(format!("{url}/[1-30]"))));
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines.len(), 30, "{said}");
            for line in lines {
                let mut words = line.split(' ');
                let mut address = || words.next().and_then(|w| w.parse::<IpAddr>().ok());
                let seen = [address(), address()];
                assert_eq!(
                    seen,
                    [Some(client), Some(vip)],
                    "{carrier} {pair:?}: {line}"
                );
                assert_eq!(words.next(), Some("80"), "{line}");
            }

            let file = lab.dir().join("noise");
            let sent = write_noise(&file, LARGE, 7);
            let path = format!("{url}/files/noise");
            checked(curl(&lab).arg("--upload-file").arg(&file).arg(&path));
            let back = lab.dir().join("back");
            checked(curl(&lab).arg("--output").arg(&back).arg(&path));
            assert!(holds(&back, &sent), "{carrier} {pair:?}");
        }
    }
}

fn other(carrier: &str) -> &'static str {
    match carrier {
        "proxy-v1" => "proxy-v2",
        _ => "proxy-v1",
    }
}

/// Connects to the VIP and says nothing; what the server says.
fn greeting(lab: &Lab, vip: SocketAddr) -> String {
    lab.client.within(move || {
        let stream = TcpStream::connect_timeout(&vip, Duration::from_secs(10));
        let mut stream = stream.expect("a connection to the VIP");
        let pause = Some(Duration::from_secs(20));
        stream.set_read_timeout(pause).expect("a timeout");
        let mut said = String::new();
        stream
            .read_to_string(&mut said)
            .expect("a greeting, then the end");
        said
    })
}

/// A server that reads a PROXY v2 header, greets whom it names, and hangs up.
#[test]
fn a_server_that_speaks_first_knows_to_whom() {
    for pair in PAIRS {
        let Some(lab) = Lab::new(1) else { return };
        let server = SocketAddr::new(pair.1.rip(1), 25);
        let listener = lab.servers[0].within(move || TcpListener::bind(server).expect("port 25"));
        let greeter = std::thread::spawn(move || {
            for _ in 0..20 {
                let (mut stream, _) = listener.accept().expect("a connection");
                let pause = Some(Duration::from_secs(10));
                stream.set_read_timeout(pause).expect("a timeout");
                let client = read_v2(&mut stream);
                let _ = stream.write_all(format!("220 {client}\r\n").as_bytes());
            }
        });
        let _weir = Director::start(&lab, &telling(2, pair, 25, "proxy-v2"));
        for _ in 0..20 {
            let said = greeting(&lab, SocketAddr::new(pair.0.vip(), 25));
            assert_eq!(said, format!("220 {}\r\n", pair.0.client()), "{pair:?}");
        }
        greeter.join().expect("each was greeted");
    }
}

/// The source address of a PROXY v2 header.
fn read_v2(stream: &mut TcpStream) -> IpAddr {
    let mut head = [0; 16];
    stream
        .read_exact(&mut head)
        .expect("a header without any data");
    assert_eq!(head[..13], *b"\r\n\r\n\0\r\nQUIT\n\x21");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut rest).expect("the addresses");
    match head[13] {
        0x11 => {
            let octets: [u8; 4] = rest[..4].try_into().expect("four");
            Ipv4Addr::from(octets).into()
        }
        0x21 => {
            let octets: [u8; 16] = rest[..16].try_into().expect("sixteen");
            Ipv6Addr::from(octets).into()
        }
        other => panic!("family and protocol {other:02x}"),
    }
}

/// haproxy takes the header and asks a server behind it, which speaks first.
#[test]
fn haproxy_accepts_both_versions() {
    if find_program("haproxy").is_none() {
        println!("skipped: haproxy is not installed");
        return;
    }
    for carrier in ["proxy-v1", "proxy-v2"] {
        let Some(lab) = Lab::new(1) else { return };
        let behind = SocketAddr::from(([127, 0, 0, 1], 2525));
        lab.servers[0].run("ip link set lo up");
        let listener = lab.servers[0].within(move || TcpListener::bind(behind).expect("2525"));
        let greeter = std::thread::spawn(move || {
            for _ in 0..10 {
                let (mut stream, _) = listener.accept().expect("a connection");
                // haproxy passes on, in version 2, whom it was told of.
                let client = read_v2(&mut stream);
                let _ = stream.write_all(format!("220 {client}\r\n").as_bytes());
            }
        });
        let conf = lab.dir().join("haproxy.cfg");
        let text = "defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen smtp
    bind :25 accept-proxy
    server behind 127.0.0.1:2525 send-proxy-v2
";
        std::fs::write(&conf, text).expect("the lab's directory is ours");
        let mut command = lab.servers[0].command("haproxy");
        let _haproxy = Process::start("haproxy", command.arg("-db").arg("-f").arg(&conf));
        listens(&lab, 25);
        let _weir = Director::start(&lab, &telling(2, (V4, V4), 25, carrier));
        for _ in 0..10 {
            let said = greeting(&lab, SocketAddr::new(V4.vip(), 25));
            assert_eq!(said, format!("220 {}\r\n", V4.client()), "{carrier}");
        }
        greeter.join().expect("each was greeted");
    }
}
