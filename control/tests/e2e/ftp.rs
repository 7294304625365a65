//! FTP with vsftpd and curl: active and passive, by the commands of either family, listings and
//! files both ways, through NAT and FULL-NAT, between families, behind a SYN proxy, and through DR
//! and TUN by persistence.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::client::curl;
use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::modes::fullnat;
use crate::realserver::RealServer;
use crate::servers::{holds, write_noise};
use crate::topology::{Lab, Process, checked, eventually, find_program, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// Of each file, bytes.
const FILE: usize = 3 << 20;
/// Files that are there before.
const ENTRIES: usize = 4000;
/// Where vsftpd locks itself up; nothing may be in it.
const JAIL: &str = "/run/vsftpd/empty";

/// Of server `number`, what its vsftpd shows.
fn files(lab: &Lab, number: usize) -> PathBuf {
    lab.dir().join(format!("ftp{number}"))
}

/// vsftpd in a server, over one family: anybody may read and write `pub`.
fn vsftpd(lab: &Lab, number: usize, family: Family) -> Process {
    let dir = files(lab, number);
    std::fs::create_dir_all(dir.join("pub")).expect("the lab's directory is ours");
    // A listing of many packets: vsftpd says that it has sent a short one before the client need
    // have the connection, on another worker, and curl takes that for a refusal.
    for n in 0..ENTRIES {
        std::fs::write(dir.join(format!("pub/entry-{n}")), "").expect("it is ours");
    }
    // The root must not be writable for the anonymous user; `pub` is.
    checked(Command::new("chmod").arg("0755").arg(lab.dir()).arg(&dir));
    checked(Command::new("chmod").arg("0777").arg(dir.join("pub")));
    let conf = lab.dir().join(format!("vsftpd{number}.conf"));
    let at = dir.display();
    let (v4, v6) = match family {
        V4 => ("YES", "NO"),
        V6 => ("NO", "YES"),
    };
    let settings = format!(
        "background=NO
listen={v4}
listen_ipv6={v6}
anonymous_enable=YES
no_anon_password=YES
anon_root={at}
write_enable=YES
anon_upload_enable=YES
anon_umask=022
connect_from_port_20=YES
seccomp_sandbox=NO
isolate_network=NO
xferlog_enable=NO
secure_chroot_dir={JAIL}
"
    );
    std::fs::create_dir_all(JAIL).expect("we are root");
    std::fs::write(&conf, settings).expect("the lab's directory is ours");
    let netns = &lab.servers[number - 1];
    let mut command = netns.command("vsftpd");
    let vsftpd = Process::start("vsftpd", command.arg(&conf));
    eventually(Duration::from_secs(10), "vsftpd listens", || {
        let found = netns.run("ss -Hltn sport = :21");
        (!found.is_empty()).then_some(())
    });
    vsftpd
}

/// curl's words for each way of a data connection that a client of this family has.
fn ways(vip: Family) -> &'static [&'static [&'static str]] {
    const EPSV: &[&str] = &["--ftp-pasv"];
    const PASV: &[&str] = &["--ftp-pasv", "--disable-epsv"];
    const EPRT: &[&str] = &["--ftp-port", "-"];
    const PORT: &[&str] = &["--ftp-port", "-", "--disable-eprt"];
    match vip {
        V4 => &[EPSV, PASV, EPRT, PORT],
        V6 => &[EPSV, EPRT],
    }
}

fn transfers(lab: &Lab, (vip, rip): (Family, Family), title: &str) {
    let url = format!("ftp://{}/pub/", SocketAddr::new(vip.vip(), 21));
    let file = lab.dir().join("noise");
    let sent = write_noise(&file, FILE, 11);
    for (n, way) in ways(vip).iter().enumerate() {
        // A server without IPv4 has no word for PASV's answer.
        if way.contains(&"--disable-epsv") && rip == V6 {
            continue;
        }
        let what = format!("{title} {way:?}");
        let ftp = || {
            let mut command = curl(lab);
            command.args(*way);
            command
        };
        let name = format!("up{n}");
        checked(
            ftp()
                .arg("--upload-file")
                .arg(&file)
                .arg(format!("{url}{name}")),
        );
        let there = files(lab, 1).join("pub").join(&name);
        assert!(holds(&there, &sent), "{what}: up");
        let listing = text(checked(ftp().arg(&url)));
        assert!(listing.contains(&name), "{what}: {name} is not listed");
        assert!(listing.lines().count() > ENTRIES, "{what}: not all is");
        // Several on one control connection.
        let back = lab.dir().join("back#1");
        checked(
            ftp()
                .arg("--output")
                .arg(&back)
                .arg(format!("{url}up[{n}-{n}]")),
        );
        let back = lab.dir().join(format!("back{n}"));
        assert!(holds(&back, &sent), "{what}: down");
        let names = [name.as_str(); 4].map(|name| format!("{url}{name}"));
        let many = checked(ftp().args(names)).stdout;
        assert!(many == sent.repeat(4), "{what}: four on one connection");
    }
}

/// Whether there is a server to test with.
fn is_there() -> bool {
    let found = find_program("vsftpd").is_some();
    if !found {
        println!("skipped: vsftpd is not installed");
    }
    found
}

with_1_2_and_3_workers!(ftp_by_fullnat);

fn ftp_by_fullnat(workers: usize) {
    for pair in [(V4, V4), (V6, V6), (V6, V4), (V4, V6)] {
        if !is_there() {
            return;
        }
        let Some(lab) = Lab::new(1) else { return };
        let _vsftpd = vsftpd(&lab, 1, pair.1);
        let config = Config::new(workers).service("tcp", pair, 21, &fullnat(pair.1));
        let weir = Director::start(&lab, &config);
        let title = format!("FULL-NAT {pair:?}, {workers} workers");
        transfers(&lab, pair, &title);
        is_counted(&weir, &title);
    }
}

with_1_2_and_3_workers!(ftp_by_nat);

fn ftp_by_nat(workers: usize) {
    for family in [V4, V6] {
        if !is_there() {
            return;
        }
        let Some(lab) = Lab::new(1) else { return };
        let _vsftpd = vsftpd(&lab, 1, family);
        let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
        let config = Config::new(workers);
        let config = config.service("tcp", (family, family), 21, "forward = \"nat\"");
        let weir = Director::start(&lab, &config);
        let _rs = RealServer::set_up(&lab.servers[0], &format!("nat --gateway {dip4} {dip6}"));
        let title = format!("NAT {family:?}, {workers} workers");
        transfers(&lab, (family, family), &title);
        is_counted(&weir, &title);
    }
}

with_1_2_and_3_workers!(ftp_with_a_syn_proxy);

/// The control connection's numbers are changed twice, by the handshake and by the helper.
fn ftp_with_a_syn_proxy(workers: usize) {
    if !is_there() {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let _vsftpd = vsftpd(&lab, 1, V4);
    let keys = format!("{}\nsyn_proxy = \"always\"", fullnat(V4));
    let config = Config::new(workers).service("tcp", (V4, V4), 21, &keys);
    let weir = Director::start(&lab, &config);
    let title = format!("FULL-NAT and SYN proxy, {workers} workers");
    transfers(&lab, (V4, V4), &title);
    is_counted(&weir, &title);
}

with_1_2_and_3_workers!(ftp_by_dr);

fn ftp_by_dr(workers: usize) {
    by_persistence(workers, "DR", "forward = \"dr\"", |_| "dr".to_owned());
}

/// VXLAN, the tunnel that every kernel has.
#[test]
fn ftp_by_tun() {
    let keys = "forward = \"tun\"\ntunnel = { type = \"vxlan\", vni = 77 }";
    by_persistence(3, "VXLAN", keys, |family| {
        let director = family.director_in_lan();
        format!("tun --type vxlan --vni 77 --director {director}")
    });
}

/// Two servers, and what is not FTP's goes to them in turn: persistence has a client's data
/// connections go where its control connection went. `keys` is how the service forwards, and
/// `real_server` what `scripts/realserver` is told for that.
fn by_persistence(workers: usize, mode: &str, keys: &str, real_server: impl Fn(Family) -> String) {
    for family in [V4, V6] {
        if !is_there() {
            return;
        }
        let Some(lab) = Lab::new(2) else { return };
        lab.let_answers_go_straight();
        let _vsftpd = [1, 2].map(|number| vsftpd(&lab, number, family));
        let vip = family.vip();
        let servers = lab.servers.iter();
        let args = format!("{} --vip {vip}", real_server(family));
        let servers = servers.map(|netns| RealServer::set_up(netns, &args));
        let _servers: Vec<_> = servers.collect();
        let [one, two] = [1, 2].map(|n| SocketAddr::new(family.rip(n), 21));
        let vip = SocketAddr::new(vip, 21);
        let keys = format!(
            "{keys}\npersistence = {{ timeout = \"60s\" }}\n\
             [[service.real_server]]\naddress = \"{two}\"\n"
        );
        let config = Config::new(workers).service_by("tcp", vip, one, &keys);
        let _weir = Director::start(&lab, &config);
        let file = lab.dir().join("noise");
        let sent = write_noise(&file, FILE, 12);
        for (n, way) in ways(family).iter().enumerate() {
            let title = format!("{mode} {family:?} {way:?}, {workers} workers");
            let url = format!("ftp://{vip}/pub/up{n}");
            checked(
                curl(&lab)
                    .args(*way)
                    .arg("--upload-file")
                    .arg(&file)
                    .arg(&url),
            );
            let back = checked(curl(&lab).args(*way).args([&url; 3])).stdout;
            assert!(back == sent.repeat(3), "{title}: three times down");
        }
        // All of it at one server.
        let got = [1, 2].map(|number| {
            let names = (0..ways(family).len()).map(|n| format!("pub/up{n}"));
            let there = names.map(|name| files(&lab, number).join(name));
            let there = there.filter(|file| file.exists());
            there.map(|file| holds(&file, &sent)).collect::<Vec<_>>()
        });
        let all = vec![true; ways(family).len()];
        let title = format!("{mode} {family:?}, {workers} workers");
        assert!(
            got == [all.clone(), vec![]] || got == [vec![], all],
            "{title}: {got:?}"
        );
    }
}

/// Every data connection was announced and came; none was refused or missed.
fn is_counted(weir: &Director<'_>, title: &str) {
    let counters = weir.json(&["counters"]);
    let of = |name: &str| {
        let all = counters["workers"].as_array().expect("a list");
        let found = all.iter().find(|c| c["name"] == name);
        found.and_then(|c| c["value"].as_u64()).expect("a counter")
    };
    let (announced, came) = (of("data_expected"), of("data_conns"));
    assert!(
        came >= 14 && announced >= came,
        "{title}: {came} of {announced}"
    );
    assert_eq!(
        (of("helper_refused"), of("helper_missed")),
        (0, 0),
        "{title}"
    );
}
