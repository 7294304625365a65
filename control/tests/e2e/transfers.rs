//! Much data on one connection, each way: every byte arrives, in order.

use crate::config::Config;
use crate::servers::{Nginx, holds, write_noise};
use crate::topology::Lab;
use crate::weir::Director;
use crate::{client, with_1_2_and_3_workers};

const SIZE: usize = 200_000_000;

with_1_2_and_3_workers!(download_of_200_mb_arrives_whole);
with_1_2_and_3_workers!(upload_of_200_mb_arrives_whole);

fn download_of_200_mb_arrives_whole(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_all(&lab);
    let _weir = Director::start(&lab, &Config::new(workers).server(1, 100));
    let noise = nginx[0].files().join("noise");
    let sent = write_noise(&noise, SIZE, 1);

    let got = client::download(&lab, "/files/noise");

    assert!(got.body == sent);
    println!(
        "download, {workers} workers: {} MB/s",
        got.speed / 1_000_000
    );
}

fn upload_of_200_mb_arrives_whole(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_all(&lab);
    let _weir = Director::start(&lab, &Config::new(workers).server(1, 100));
    let noise = lab.dir().join("noise");
    let sent = write_noise(&noise, SIZE, 2);

    let speed = client::upload(&lab, &noise, "/files/received");

    assert!(holds(&nginx[0].files().join("received"), &sent));
    println!("upload, {workers} workers: {} MB/s", speed / 1_000_000);
}
