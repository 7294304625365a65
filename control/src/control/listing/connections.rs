//! Listings of connections.
#![forbid(unsafe_code)]

use weir_dataplane::command::ConnView;
use weir_dataplane::{CoreId, Tick};

use super::{Kind, ServiceBook};
use crate::api::ConnectionFilter;
use crate::api::documents::{Connection, Connections};

/// Connections.
#[derive(Debug)]
pub(crate) enum OfConnections {}

impl Kind for OfConnections {
    type View = ConnView;
    type Filter = ConnectionFilter;
    type Item = Connection;
    type Document = Connections;

    fn limit(filter: &ConnectionFilter) -> usize {
        filter.limit
    }

    fn item(
        filter: &ConnectionFilter,
        core: CoreId,
        view: &ConnView,
        services: &ServiceBook,
    ) -> Option<Connection> {
        let service = services.name(view.server_id);
        matches(filter, view, service).then(|| connection(core, view, service))
    }

    fn document(connections: Vec<Connection>, more: bool) -> Connections {
        Connections { connections, more }
    }
}

pub(super) fn matches(filter: &ConnectionFilter, view: &ConnView, service: Option<&str>) -> bool {
    let wanted = filter.service.as_deref();
    wanted.is_none_or(|name| service == Some(name))
        && filter.client.is_none_or(|at| at.matches(view.client))
        && filter.server.is_none_or(|at| at.matches(view.server))
        && filter
            .state
            .is_none_or(|state| state.name() == view.state.name())
}

pub(super) fn connection(core: CoreId, view: &ConnView, service: Option<&str>) -> Connection {
    Connection {
        worker: core.0,
        protocol: view.proto.to_string(),
        state: view.state.name().to_owned(),
        client: view.client,
        virtual_: view.virtual_,
        local: view.local,
        server: view.server,
        service: service.map(str::to_owned),
        // Not yet over: the second that has begun counts.
        expires_seconds: view.expires.div_ceil(Tick::PER_SECOND),
        age_seconds: view.age / Tick::PER_SECOND,
        in_packets: view.in_packets,
    }
}
