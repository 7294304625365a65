use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::client::{self, ClientError};
use super::documents::{Connections, Counters, Reloaded, Services, Status, Templates};
use super::socket::{SocketError, listen};
use super::*;
use crate::explain::document::{Explained, Verdict};
use crate::explain::{self, capture};

/// A server with a control loop that knows a few answers, on a thread of its own; it ends when
/// a listing of service "end" is asked for.
struct Fake {
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Fake {
    fn start() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("weir.sock");
        let (ready, is_ready) = std::sync::mpsc::channel();
        let path = socket.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (_socket, listener) = listen(&path).unwrap();
                let (api, requests) = mpsc::channel(server::WAITING);
                tokio::spawn(server::serve(listener, api));
                ready.send(()).unwrap();
                answer_until_end(requests).await;
            });
        });
        is_ready.recv().unwrap();
        Fake {
            socket,
            thread: Some(thread),
            _dir: dir,
        }
    }

    fn error<T: serde::de::DeserializeOwned + std::fmt::Debug>(&self, target: &str) -> String {
        client::get::<T>(&self.socket, target)
            .unwrap_err()
            .to_string()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // The answer is lost with its server.
        let _ = client::get::<Connections>(&self.socket, "/v1/connections?service=end");
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.socket.exists());
    }
}

fn status() -> Status {
    Status {
        version: "9.9.9".into(),
        pid: 17,
        uptime_seconds: 1,
        generation: 3,
        settled: true,
        config_file: "weir.toml".into(),
        services: 0,
        routes: 0,
        neighbours: 0,
        connections: 0,
        max_connections: 1,
        workers: vec![],
        ports: vec![],
    }
}

async fn answer_until_end(mut requests: mpsc::Receiver<Request>) {
    let mut reloads = 0;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Status(back) => back.send(status()).unwrap(),
            Request::Services(back) => {
                let services = vec![];
                back.send(Services {
                    generation: 3,
                    services,
                })
                .unwrap();
            }
            // No answer: as if the loop had ended.
            Request::Counters(back) => drop(back),
            Request::Connections(filter, back) => match filter.service.as_deref() {
                Some("end") => return,
                // The filter comes back as the problem's text.
                _ => back
                    .send(Err(Problem::Unavailable(format!("{filter:?}"))))
                    .unwrap(),
            },
            Request::Templates(filter, back) => back
                .send(Err(Problem::Unavailable(format!("{filter:?}"))))
                .unwrap(),
            // What was asked comes back as the problem's text.
            Request::Drain(wanted, back) => back
                .send(Err(Problem::Refused(format!("{wanted:?}"))))
                .unwrap(),
            Request::Blacklist(wanted, back) => back
                .send(Err(Problem::Refused(format!("{wanted:?}"))))
                .unwrap(),
            Request::Picture(back) => {
                let picture = explain::tests::picture(explain::tests::LAB);
                back.send(picture).unwrap();
            }
            Request::Reload(back) => {
                reloads += 1;
                back.send(match reloads {
                    1 => Ok(Reloaded {
                        generation: 4,
                        summary: "x".into(),
                        changes: vec!["y".into()],
                        warnings: vec![],
                    }),
                    _ => Err(Problem::Refused("weir.toml:1:1: no".into())),
                })
                .unwrap();
            }
        }
    }
}

#[test]
fn documents_come_back_as_they_were_sent() {
    let fake = Fake::start();
    let got: Status = client::get(&fake.socket, "/v1/status").unwrap();
    assert_eq!(got, status());
    let got: Services = client::get(&fake.socket, "/v1/services").unwrap();
    assert_eq!((got.generation, got.services.len()), (3, 0));
    let got: Reloaded = client::post(&fake.socket, "/v1/reload").unwrap();
    assert_eq!((got.generation, got.changes), (4, vec!["y".to_owned()]));
    let refused = client::post::<Reloaded>(&fake.socket, "/v1/reload").unwrap_err();
    assert_eq!(refused.to_string(), "weir.toml:1:1: no");
}

#[test]
fn refusals_are_one_sentence() {
    let fake = Fake::start();
    assert_eq!(
        fake.error::<Status>("/v2/status"),
        "/v2/status is not part of the API"
    );
    assert_eq!(
        fake.error::<Reloaded>("/v1/reload"),
        "/v1/reload does not take GET"
    );
    assert_eq!(fake.error::<Counters>("/v1/counters"), "weir is stopping");
    for (query, error) in [
        ("limit=0", "limit: 0 is out of range; use 1 to 100000"),
        (
            "limit=100001",
            "limit: 100001 is out of range; use 1 to 100000",
        ),
        (
            "client=me",
            "client: \"me\" is no address; write 10.0.0.1, 10.0.0.1:80, 2001:db8::1 or [2001:db8::1]:80",
        ),
        (
            "server=10.0.0.1:x",
            "server: \"10.0.0.1:x\" is no address; write 10.0.0.1, 10.0.0.1:80, 2001:db8::1 or [2001:db8::1]:80",
        ),
        (
            "state=open",
            "state: \"open\" is no connection state; use one of NONE, ESTABLISHED, SYN_SENT, \
             SYN_RECV, FIN_WAIT, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, SYNACK, UDP, \
             INIT1, INIT, C-SENT, C-REPLIED, C-WAIT, COOKIE, C-ECHOED, S-SENT, S-RECEIVED, \
             S-ACK-SENT, REJECTED, CLOSED, ICMP",
        ),
    ] {
        let target = format!("/v1/connections?{query}");
        assert_eq!(fake.error::<Connections>(&target), error);
    }
    for query in ["limit=many", "colour=red"] {
        let error = fake.error::<Connections>(&format!("/v1/connections?{query}"));
        assert!(
            error.contains("Failed to deserialize query string"),
            "{error}"
        );
    }
}

#[test]
fn a_filter_arrives_as_it_was_meant() {
    let fake = Fake::start();
    assert_eq!(
        fake.error::<Connections>("/v1/connections"),
        format!("{:?}", ConnectionFilter::default())
    );
    let filter = ConnectionFilter {
        service: Some("a&b".into()),
        client: Some("10.0.0.1".parse().unwrap()),
        server: Some("10.1.0.11:80".parse().unwrap()),
        state: Some(weir_dataplane::conn::state::State::SynRecv),
        limit: 7,
    };
    assert_eq!(
        fake.error::<Connections>(
            "/v1/connections?limit=7&service=a%26b&client=10.0.0.1&server=10.1.0.11%3A80\
             &state=syn_recv"
        ),
        format!("{filter:?}")
    );
}

#[test]
fn a_filter_of_templates_arrives_as_it_was_meant() {
    let fake = Fake::start();
    let error = |query: &str| fake.error::<Templates>(&format!("/v1/templates{query}"));
    assert_eq!(error(""), format!("{:?}", TemplateFilter::default()));
    let filter = TemplateFilter {
        service: Some("sip".into()),
        client: Some("10.0.0.1".parse().unwrap()),
        server: Some("10.1.0.11".parse().unwrap()),
        call_id: Some("a 1@b".into()),
        limit: 7,
    };
    assert_eq!(
        error("?limit=7&service=sip&client=10.0.0.1&server=10.1.0.11&call_id=a+1%40b"),
        format!("{filter:?}")
    );
    assert_eq!(
        error("?client=10.0.0.0/8"),
        "client: \"10.0.0.0/8\" is no address; write 10.0.0.1 or 2001:db8::1"
    );
    assert_eq!(
        error("?limit=0"),
        "limit: 0 is out of range; use 1 to 100000"
    );
}

#[test]
fn an_endpoint_is_an_address_or_one_port_of_it() {
    let at: SocketAddr = "10.0.0.1:80".parse().unwrap();
    for (text, matches) in [
        ("10.0.0.1", true),
        ("10.0.0.1:80", true),
        ("10.0.0.1:81", false),
        ("10.0.0.2", false),
    ] {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!(endpoint.matches(at), matches, "{text}");
        assert_eq!(endpoint.to_string(), text);
    }
    for text in ["2001:db8::1", "[2001:db8::1]:80"] {
        let endpoint: Endpoint = text.parse().unwrap();
        assert!(endpoint.matches("[2001:db8::1]:80".parse().unwrap()));
        assert_eq!(endpoint.to_string(), text);
    }
}

#[test]
fn nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weir.sock");
    let error = client::get::<Status>(&socket, "/v1/status").unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(_)), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "no weir listens on {}; start it (`weir run --config FILE`) or name its socket with \
             --socket",
            socket.display()
        )
    );
}

#[test]
fn something_else_listens() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weir.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 smtp ready\r\n").unwrap();
    });
    let error = client::get::<Status>(&socket, "/v1/status").unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    other.join().unwrap();
}

fn in_runtime<T>(work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    work()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_socket_is_for_its_group_and_goes_with_its_owner() {
    in_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/for/it/weir.sock");
        let (socket, _listener) = listen(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        drop(socket);
        assert!(!path.exists());
    });
}

#[test]
fn a_living_socket_is_not_taken() {
    in_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        let (_socket, _listener) = listen(&path).unwrap();
        let error = listen(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)));
        assert_eq!(
            error.to_string(),
            format!(
                "socket {}: another weir runs and listens there; stop it, or give this one its \
                 own with --socket",
                path.display()
            )
        );
        assert!(path.exists());
    });
}

#[test]
fn what_a_dead_process_left_is_replaced() {
    in_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // the file stays
        assert!(path.exists());
        let (_socket, _listener) = listen(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
    });
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    in_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            listen(&path).unwrap_err(),
            SocketError::NotASocket(_)
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn another_weirs_socket_is_not_removed_at_the_end() {
    in_runtime(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        let (socket, listener) = listen(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(listener);
        let (_other, _other_listener) = listen(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    });
}

#[test]
fn packets_are_explained_without_the_control_loop() {
    let fake = Fake::start();
    let (from, to) = ("192.0.2.7:40000", "10.0.0.10:80");
    let packet = explain::opening(
        weir_dataplane::Proto::Tcp,
        from.parse().unwrap(),
        to.parse().unwrap(),
    );
    let file = capture::write([(packet.at, &*packet.frame)]);
    let ask = |target: &str, file: &[u8]| {
        client::post_bytes::<Explained>(&fake.socket, target, file.to_vec())
    };
    let explained = ask("/v1/explain", &file).unwrap();
    assert_eq!(explained.source, "lab.toml");
    assert_eq!(explained.packets[0].verdict, Verdict::Forwarded);
    assert!(explained.packets[0].out[0].frame.is_empty());
    let explained = ask("/v1/explain?port=lan0&frames=true", &file).unwrap();
    assert_eq!(explained.packets[0].port, "lan0");
    assert_eq!(explained.packets[0].out[0].frame.len(), 108);

    for (target, file, wrong) in [
        (
            "/v1/explain?port=x",
            &*file,
            "no port is named \"x\"; there are wan0, lan0",
        ),
        (
            "/v1/explain",
            b"no capture at all, but long enough",
            "the capture is no pcap or pcapng file, or a broken one: Invalid field value: \
             PcapHeader: wrong magic number",
        ),
        (
            "/v1/explain",
            b"",
            "the capture is no pcap or pcapng file, or a broken one: Error reading bytes",
        ),
    ] {
        assert_eq!(ask(target, file).unwrap_err().to_string(), wrong);
    }
    let wrong = ask("/v1/explain?color=red", &file).unwrap_err().to_string();
    assert!(wrong.contains("unknown field `color`"), "{wrong}");
}
