use std::net::SocketAddr;

use weir_dataplane::conn::state::State;
use weir_dataplane::{Proto, ServerId};

use super::*;
use crate::api::Endpoint;

type Answer = oneshot::Receiver<Result<Connections, Problem>>;

fn ask(listings: &mut Listings, filter: ConnectionFilter) -> Answer {
    let (back, answer) = oneshot::channel();
    listings.ask(filter, back);
    answer
}

fn limit(limit: usize) -> ConnectionFilter {
    ConnectionFilter {
        limit,
        ..ConnectionFilter::default()
    }
}

fn view(client: u16, state: State) -> ConnView {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    ConnView {
        proto: Proto::Tcp,
        client: at(&format!("192.0.2.1:{client}")),
        virtual_: at("10.0.0.10:80"),
        local: at("10.1.0.100:2000"),
        server: at("10.1.0.11:8080"),
        server_id: ServerId(5),
        state,
        expires: 65,
        age: 127,
        in_packets: 3,
    }
}

/// Fills `page` as a worker would, with the clients `ports`.
fn fill(mut page: Box<ConnPage>, ports: std::ops::Range<u16>, done: bool) -> Box<ConnPage> {
    assert!(page.found.is_empty() && page.found.capacity() >= ports.len());
    page.found
        .extend(ports.map(|port| view(port, State::Established)));
    page.cursor += page.found.len() as u32;
    page.done = done;
    page
}

fn clients(answer: &mut Answer) -> (Vec<u16>, bool) {
    let listed = answer.try_recv().unwrap().unwrap();
    let ports = listed.connections.iter().map(|c| c.client.port());
    (ports.collect(), listed.more)
}

#[test]
fn pages_of_all_workers_make_one_listing() {
    let book = ServiceBook::default();
    let mut listings = Listings::new(2);
    assert!(listings.page_for(CoreId(0)).is_none());
    let mut answer = ask(&mut listings, ConnectionFilter::default());
    let first = listings.page_for(CoreId(0)).unwrap();
    let second = listings.page_for(CoreId(1)).unwrap();
    assert_eq!((first.core, second.core), (CoreId(0), CoreId(1)));
    assert!(
        listings.page_for(CoreId(0)).is_none(),
        "one page of a worker at a time"
    );
    listings.take(fill(first, 0..3, false), &book);
    let again = listings.page_for(CoreId(0)).unwrap();
    assert_eq!(again.cursor, 3, "where the worker left off");
    listings.take(fill(second, 10..12, true), &book);
    assert!(
        listings.page_for(CoreId(1)).is_none(),
        "its table's end was reached"
    );
    assert!(listings.is_busy());
    listings.take(fill(again, 3..4, true), &book);
    assert_eq!(clients(&mut answer), (vec![0, 1, 2, 10, 11, 3], false));
    assert!(!listings.is_busy());
}

#[test]
fn a_connection_is_shown_in_seconds() {
    let shown = connection(CoreId(3), &view(7, State::FinWait), Some("web"));
    let at = |text: &str| text.parse().unwrap();
    assert_eq!(
        shown,
        Connection {
            worker: 3,
            protocol: "tcp".into(),
            state: "FIN_WAIT".into(),
            client: at("192.0.2.1:7"),
            virtual_: at("10.0.0.10:80"),
            local: at("10.1.0.100:2000"),
            server: at("10.1.0.11:8080"),
            service: Some("web".into()),
            expires_seconds: 2, // 65 ticks: the second second has begun
            age_seconds: 1,     // 127 ticks: the second second is not over
            in_packets: 3,
        }
    );
}

#[test]
fn the_limit_ends_a_listing_and_the_next_waits_for_pages_still_away() {
    let book = ServiceBook::default();
    let mut listings = Listings::new(2);
    let mut answer = ask(&mut listings, limit(2));
    let mut other = ask(&mut listings, limit(1));
    let first = listings.page_for(CoreId(0)).unwrap();
    let second = listings.page_for(CoreId(1)).unwrap();
    listings.take(fill(first, 0..3, false), &book);
    assert_eq!(clients(&mut answer), (vec![0, 1], true));
    // Worker 1 still has a page of the listing that is over.
    assert!(listings.page_for(CoreId(0)).is_none());
    listings.take(fill(second, 10..13, true), &book);
    let first = listings.page_for(CoreId(0)).unwrap();
    assert_eq!(first.cursor, 0);
    listings.take(fill(first, 20..21, true), &book);
    assert!(other.try_recv().is_err(), "worker 1 has not answered");
    let second = listings.page_for(CoreId(1)).unwrap();
    listings.take(fill(second, 0..0, true), &book);
    // Exactly as many as the limit: nothing was left out.
    assert_eq!(clients(&mut other), (vec![20], false));
}

#[test]
fn who_has_gone_is_not_listed_for() {
    let book = ServiceBook::default();
    let mut listings = Listings::new(1);
    drop(ask(&mut listings, ConnectionFilter::default()));
    let page = listings.page_for(CoreId(0)).unwrap();
    listings.take(fill(page, 0..3, false), &book);
    assert!(!listings.is_busy());
}

#[test]
fn too_many_listings_are_refused() {
    let mut listings = Listings::new(1);
    let _waiting: Vec<Answer> = (0..WAITING + 1)
        .map(|_| ask(&mut listings, ConnectionFilter::default()))
        .collect();
    let mut refused = ask(&mut listings, ConnectionFilter::default());
    assert_eq!(
        refused.try_recv().unwrap().unwrap_err().to_string(),
        "8 listings wait already; try again"
    );
}

#[test]
fn filters() {
    let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
    let view = view(7, State::TimeWait);
    let all = ConnectionFilter::default;
    for (filter, wanted) in [
        (all(), true),
        (
            ConnectionFilter {
                service: Some("web".into()),
                ..all()
            },
            true,
        ),
        (
            ConnectionFilter {
                service: Some("dns".into()),
                ..all()
            },
            false,
        ),
        (
            ConnectionFilter {
                client: Some(endpoint("192.0.2.1")),
                ..all()
            },
            true,
        ),
        (
            ConnectionFilter {
                client: Some(endpoint("192.0.2.1:8")),
                ..all()
            },
            false,
        ),
        (
            ConnectionFilter {
                server: Some(endpoint("10.1.0.11:8080")),
                ..all()
            },
            true,
        ),
        (
            ConnectionFilter {
                server: Some(endpoint("192.0.2.1")),
                ..all()
            },
            false,
        ),
        (
            ConnectionFilter {
                state: Some(State::TimeWait),
                ..all()
            },
            true,
        ),
        (
            ConnectionFilter {
                state: Some(State::Udp),
                ..all()
            },
            false,
        ),
    ] {
        assert_eq!(matches(&filter, &view, Some("web")), wanted, "{filter:?}");
    }
    // TCP and SCTP both have an ESTABLISHED: the name means both.
    let mut sctp = view;
    sctp.state = State::SctpEstablished;
    let established = ConnectionFilter {
        state: Some(State::Established),
        ..all()
    };
    assert!(matches(&established, &sctp, None));
    let nameless = ConnectionFilter {
        service: Some("web".into()),
        ..all()
    };
    assert!(!matches(&nameless, &view, None));
}
