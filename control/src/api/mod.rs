//! What programs and people may ask of a running Weir, over a unix socket.
//!
//! [`documents`] are the answers, shared by the [`server`] and the command line's [`client`];
//! [`socket`] makes the socket. The server itself knows nothing: it passes every request to the
//! control loop as a [`Request`] and waits for the answer.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`documents::Status`] |
//! | `GET /v1/services` | [`documents::Services`] |
//! | `GET /v1/connections?limit=&service=&client=&server=&state=` | [`documents::Connections`] |
//! | `GET /v1/templates?limit=&service=&client=&server=&call_id=` | [`documents::Templates`] |
//! | `GET /v1/counters` | [`documents::Counters`] |
//! | `POST /v1/reload` | [`documents::Reloaded`] |
//! | `POST /v1/drain?service=&server=&undo=&reset_after=` | [`documents::Draining`] |
//! | `GET /v1/blacklist` | [`documents::Blacklisted`]: all of it |
//! | `POST /v1/blacklist?prefix=&service=&milliseconds=` | the same: the entry that was added |
//! | `DELETE /v1/blacklist?prefix=&service=` | the same: the entry that was removed |
//! | `POST /v1/explain?port=&keep_macs=&frames=`, a capture | [`Explained`](crate::explain::document::Explained) |
//!
//! A refusal is `{"error": "one clear sentence"}` ([`documents::Refusal`]): 400 for a request
//! that makes no sense, 404 for an unknown address, 409 when the new configuration was refused
//! or another reload is under way, 503 when Weir is stopping or too many ask at once.
#![forbid(unsafe_code)]

use tokio::sync::oneshot;
use weir_dataplane::defense::access::Prefix;

mod blacklist;
pub(crate) mod client;
pub(crate) mod documents;
mod explain;
pub(crate) mod server;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

/// Where the socket is unless `--socket` says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";

/// What the server asks of the control loop; each carries the way back.
#[derive(Debug)]
pub(crate) enum Request {
    /// How Weir does.
    Status(oneshot::Sender<documents::Status>),
    /// Services and real servers.
    Services(oneshot::Sender<documents::Services>),
    /// Connections that match.
    Connections(
        ConnectionFilter,
        oneshot::Sender<Result<documents::Connections, Problem>>,
    ),
    /// Persistence templates that match.
    Templates(
        TemplateFilter,
        oneshot::Sender<Result<documents::Templates, Problem>>,
    ),
    /// All counters.
    Counters(oneshot::Sender<documents::Counters>),
    /// Take a server out of service, or back, and say what it has left.
    Drain(
        DrainRequest,
        oneshot::Sender<Result<documents::Draining, Problem>>,
    ),
    /// Show the blacklist, or change it.
    Blacklist(
        BlacklistRequest,
        oneshot::Sender<Result<documents::Blacklisted, Problem>>,
    ),
    /// Read the configuration file again.
    Reload(oneshot::Sender<Result<documents::Reloaded, Problem>>),
    /// What packets are asked of: services, routes and neighbours of now.
    Picture(oneshot::Sender<crate::explain::Picture>),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// It makes sense, but not now, or not with this configuration.
    #[error("{0}")]
    Refused(String),
    /// Weir cannot answer for the moment.
    #[error("{0}")]
    Unavailable(String),
}

/// Which server to drain, and how.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainRequest {
    /// The service's name.
    pub(crate) service: String,
    /// The server's address and port.
    pub(crate) server: std::net::SocketAddr,
    /// Back into service.
    #[serde(default)]
    pub(crate) undo: bool,
    /// Reset what is left after so many seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) reset_after: Option<std::time::Duration>,
}

fn seconds<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<std::time::Duration>, D::Error> {
    let seconds: u32 = serde::Deserialize::deserialize(from)?;
    Ok(Some(std::time::Duration::from_secs(seconds.into())))
}

/// What is asked of the blacklist. A service is named; without, all are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlacklistRequest {
    /// All entries.
    List,
    /// A new entry, or another end for one.
    Add {
        /// Who is shut out.
        prefix: Prefix,
        /// Of which service.
        service: Option<String>,
        /// For how long.
        lasts: Option<std::time::Duration>,
    },
    /// An entry less.
    Remove {
        /// Who was shut out.
        prefix: Prefix,
        /// Of which service.
        service: Option<String>,
    },
}

/// Which connections a listing wants, and how many at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionFilter {
    /// Connections of this service (its name).
    pub(crate) service: Option<String>,
    /// Connections of this client.
    pub(crate) client: Option<Endpoint>,
    /// Connections to this real server.
    pub(crate) server: Option<Endpoint>,
    /// Connections in this state, by the name that listings show.
    pub(crate) state: Option<weir_dataplane::conn::state::State>,
    /// Stop after so many.
    pub(crate) limit: usize,
}

impl ConnectionFilter {
    /// Connections of a listing that does not say how many.
    pub(crate) const DEFAULT_LIMIT: usize = 1_000;
    /// The largest listing: some 20 MB of JSON, held by control until it is written.
    pub(crate) const MAX_LIMIT: usize = 100_000;
}

impl Default for ConnectionFilter {
    fn default() -> Self {
        ConnectionFilter {
            service: None,
            client: None,
            server: None,
            state: None,
            limit: ConnectionFilter::DEFAULT_LIMIT,
        }
    }
}

/// Which templates a listing wants, and how many at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateFilter {
    /// Templates of this service (its name).
    pub(crate) service: Option<String>,
    /// Templates that this client goes by.
    pub(crate) client: Option<std::net::IpAddr>,
    /// Templates that name this real server.
    pub(crate) server: Option<Endpoint>,
    /// The template of this SIP call.
    pub(crate) call_id: Option<String>,
    /// Stop after so many.
    pub(crate) limit: usize,
}

impl Default for TemplateFilter {
    fn default() -> Self {
        TemplateFilter {
            service: None,
            client: None,
            server: None,
            call_id: None,
            limit: ConnectionFilter::DEFAULT_LIMIT,
        }
    }
}

/// An address, or one port of it, as a listing's filter names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    addr: std::net::IpAddr,
    port: Option<u16>,
}

impl Endpoint {
    /// Whether `at` is meant.
    pub(crate) fn matches(self, at: std::net::SocketAddr) -> bool {
        self.addr == at.ip() && self.port.is_none_or(|port| port == at.port())
    }
}

impl std::str::FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(addr) = text.parse() {
            return Ok(Endpoint { addr, port: None });
        }
        match text.parse::<std::net::SocketAddr>() {
            Ok(at) => Ok(Endpoint {
                addr: at.ip(),
                port: Some(at.port()),
            }),
            Err(_) => Err(format!(
                "{text:?} is no address; write 10.0.0.1, 10.0.0.1:80, 2001:db8::1 or [2001:db8::1]:80"
            )),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => std::net::SocketAddr::new(self.addr, port).fmt(f),
            None => write!(f, "{}", self.addr),
        }
    }
}
