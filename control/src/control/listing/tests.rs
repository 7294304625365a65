use std::net::SocketAddr;

use weir_dataplane::command::{ConnPage, ConnView};
use weir_dataplane::conn::state::State;
use weir_dataplane::conn::templates::{TemplateKey, TemplateView};
use weir_dataplane::packet::sip;
use weir_dataplane::service::{Mark, ServiceKey};
use weir_dataplane::{Proto, ServerId, ServiceId};

use super::connections::{connection, matches};
use super::*;
use crate::api::documents::{Connection, Connections, Template};
use crate::api::{ConnectionFilter, Endpoint, TemplateFilter};
use crate::control::services::Listed;

type Answer = oneshot::Receiver<Result<Connections, Problem>>;

fn ask(listings: &mut Listings<OfConnections>, filter: ConnectionFilter) -> Answer {
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

/// A template of 192.0.2.0/24 for a service of a mark.
fn template_view() -> TemplateView {
    TemplateView {
        key: TemplateKey::new(ServiceId(2), [192, 0, 2, 7].into(), 24, sip::hashed(b"a@b")),
        server: ServerId(5),
        expires: 65,
        controls: 3,
        prefix: 24,
        assured: true,
    }
}

fn listed() -> Listed {
    Listed {
        service: "calls".into(),
        key: ServiceKey::Mark {
            mark: Mark::new(7).unwrap(),
            v6: false,
        },
        address: "10.1.0.11:5060".parse().unwrap(),
    }
}

#[test]
fn a_template_is_shown_with_its_network_and_its_mark() {
    let shown = templates::template(CoreId(3), &template_view(), Some(&listed()));
    assert_eq!(
        shown,
        Template {
            worker: 3,
            protocol: "ip".into(),
            state: "ASSURED".into(),
            client: "192.0.2.0/24".into(),
            virtual_: Some("fwmark 7".into()),
            server: Some("10.1.0.11:5060".parse().unwrap()),
            service: Some("calls".into()),
            call_id_hash: Some(format!("{:016x}", sip::hashed(b"a@b"))),
            expires_seconds: 2,
            connections: 3,
        }
    );
}

#[test]
fn templates_are_found_by_any_client_of_theirs_and_by_call() {
    let wants = |change: fn(&mut TemplateFilter)| {
        let mut filter = TemplateFilter::default();
        change(&mut filter);
        templates::matches(&filter, &template_view(), Some(&listed()))
    };
    assert!(wants(|_| {}));
    assert!(wants(|f| f.client = Some([192, 0, 2, 200].into())));
    assert!(!wants(|f| f.client = Some([192, 0, 3, 7].into())));
    assert!(!wants(|f| f.client = Some("2001:db8::1".parse().unwrap())));
    assert!(wants(|f| f.call_id = Some("a@b".into())));
    assert!(!wants(|f| f.call_id = Some("a@c".into())));
    assert!(wants(|f| f.service = Some("calls".into())));
    assert!(!wants(|f| f.service = Some("web".into())));
    assert!(wants(|f| f.server = Some("10.1.0.11".parse().unwrap())));
    assert!(!wants(|f| f.server = Some("10.1.0.11:80".parse().unwrap())));
}

#[test]
fn pages_of_templates_make_a_listing() {
    let book = ServiceBook::default();
    let mut listings = Listings::<OfTemplates>::new(1);
    let (back, mut answer) = oneshot::channel();
    listings.ask(TemplateFilter::default(), back);
    let mut page = listings.page_for(CoreId(0)).unwrap();
    page.found.push(template_view());
    page.done = true;
    listings.take(page, &book);
    let listed = answer.try_recv().unwrap().unwrap();
    assert_eq!((listed.templates.len(), listed.more), (1, false));
    let nobodys = &listed.templates[0];
    assert_eq!((&nobodys.server, &nobodys.service), (&None, &None));
}
