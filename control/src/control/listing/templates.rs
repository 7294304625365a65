//! Listings of persistence templates.
#![forbid(unsafe_code)]

use weir_dataplane::conn::templates::{TemplateKey, TemplateView};
use weir_dataplane::defense::access::Prefix;
use weir_dataplane::packet::sip;
use weir_dataplane::{CoreId, Tick};

use super::{Kind, ServiceBook};
use crate::api::TemplateFilter;
use crate::api::documents::{Template, Templates};
use crate::control::services::Listed;

/// Templates.
#[derive(Debug)]
pub(crate) enum OfTemplates {}

impl Kind for OfTemplates {
    type View = TemplateView;
    type Filter = TemplateFilter;
    type Item = Template;
    type Document = Templates;

    fn limit(filter: &TemplateFilter) -> usize {
        filter.limit
    }

    fn item(
        filter: &TemplateFilter,
        core: CoreId,
        view: &TemplateView,
        services: &ServiceBook,
    ) -> Option<Template> {
        let server = services.server(view.server);
        matches(filter, view, server).then(|| template(core, view, server))
    }

    fn document(templates: Vec<Template>, more: bool) -> Templates {
        Templates { templates, more }
    }
}

pub(super) fn matches(
    filter: &TemplateFilter,
    view: &TemplateView,
    server: Option<&Listed>,
) -> bool {
    let wanted = filter.service.as_deref();
    let named = |name: &str| server.is_some_and(|server| &*server.service == name);
    let key = view.key;
    wanted.is_none_or(named)
        && filter
            .server
            .is_none_or(|at| server.is_some_and(|server| at.matches(server.address)))
        && filter.client.is_none_or(|client| {
            let same_family = client.is_ipv4() == key.client().is_ipv4();
            let theirs = TemplateKey::new(key.service, client, view.prefix, key.engine);
            same_family && theirs == key
        })
        && filter
            .call_id
            .as_ref()
            .is_none_or(|id| sip::hashed(id.as_bytes()) == key.engine)
}

pub(super) fn template(core: CoreId, view: &TemplateView, server: Option<&Listed>) -> Template {
    let network = Prefix {
        addr: view.key.client(),
        len: view.prefix,
    };
    let proto = server.and_then(|server| server.key.proto());
    Template {
        worker: core.0,
        protocol: proto.map_or("ip".to_owned(), |proto| proto.to_string()),
        state: if view.assured { "ASSURED" } else { "NONE" }.to_owned(),
        client: network.to_string(),
        virtual_: server.map(|server| match server.key.address() {
            Some(address) => address,
            None => server.key.to_string(),
        }),
        server: server.map(|server| server.address),
        service: server.map(|server| server.service.to_string()),
        call_id_hash: (view.key.engine != 0).then(|| format!("{:016x}", view.key.engine)),
        // Not yet over: the second that has begun counts.
        expires_seconds: view.expires.div_ceil(Tick::PER_SECOND),
        connections: view.controls,
    }
}
