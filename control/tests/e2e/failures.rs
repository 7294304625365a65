//! A real server dies in mid-download: its connections end, all others go on.

use crate::config::Config;
use crate::servers::{Nginx, SLOW_BYTES_PER_S, write_noise};
use crate::topology::Lab;
use crate::weir::Director;
use crate::{client::Held, with_1_2_and_3_workers};

with_1_2_and_3_workers!(a_killed_server_ends_its_own_connections_only);

/// Two seconds of a slow download.
const SIZE: usize = 2 * SLOW_BYTES_PER_S;

fn a_killed_server_ends_its_own_connections_only(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let mut nginx = Nginx::in_all(&lab);
    let config = Config::new(workers);
    let config = config.server(1, 100).server(2, 100).server(3, 100);
    let _weir = Director::start(&lab, &config);
    let noise = lab.dir().join("noise");
    write_noise(&noise, SIZE, 3);
    for server in &nginx {
        std::fs::hard_link(&noise, server.files().join("noise")).expect("one file system");
    }

    let mut downloads = Vec::new();
    for mut held in Held::open_many(&lab, 12) {
        let head = held.get("/slow/noise").expect("a head");
        assert_eq!(head.length, SIZE);
        downloads.push((head.server, held));
    }
    nginx[1].kill();
    // All at once, or the later ones would rest in a full window instead of going on.
    let downloads = downloads
        .into_iter()
        .map(|(server, mut held)| std::thread::spawn(move || (server, held.read_body(SIZE))));
    let downloads: Vec<_> = downloads.collect();

    let noise = std::fs::read(&noise).expect("written above");
    let mut ended = 0;
    for download in downloads {
        let (server, body) = download.join().expect("no panic");
        if server == "rs2" {
            ended += 1;
            assert!(body.len() < SIZE, "a dead server sent all of it");
            assert!(
                noise.starts_with(&body),
                "what came before the end is right"
            );
        } else {
            assert!(body == noise, "{server}: {} of {SIZE} bytes", body.len());
        }
    }
    // rr over workers that deal by themselves: about 4 of 12, surely some and not all.
    assert!((1..12).contains(&ended), "{ended} downloads were on rs2");
}
