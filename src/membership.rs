//! Puts a node on a cql store together: store, domain, links, member; and takes it apart in the opposite order.
//!
//! A node without a name takes part under a common one: of several such processes one serves, the others stand by.

use std::sync::Arc;

use actors::domain::{Domain, DomainOptions, Seat};
use actors::node::Hooks;
use actors::node::wire::Wire;
use cluster::held::Held;
use cluster::lease::Terms;
use cluster::link::{LinkOptions, Links};
use cluster::member::{Fabric, Linked, Member, MemberOptions, News, Unlinked};
use cluster::routes::{NodeId, Routes};
use schema::cql::{CqlOptions, CqlStore};
use schema::ownership::Ownership;
use schema::store::Store;

use crate::config::Config;
use crate::node::NodeError;

/// Name of nodes that no other reaches.
const NAMELESS: &str = "single";

/// A node's membership.
#[derive(Clone)]
pub struct Membership {
    /// What keeps the lease and the shards.
    pub member: Arc<Member>,
    /// Who is alive and owns what.
    pub table: Arc<dyn Ownership>,
    /// Links to other nodes, if there may be any.
    pub links: Option<Arc<Links<Wire>>>,
    /// Owners as this node knows them.
    pub routes: Arc<Routes>,
}

/// Opens the store and joins. Requests are served when the member is ready.
pub async fn join(
    config: &Config,
    cql: &CqlOptions,
    options: DomainOptions,
    hooks: Arc<dyn Hooks>,
) -> Result<(Domain, Membership), NodeError> {
    let place = config.cluster().map_err(NodeError::Config)?;
    let id = NodeId(rand::random::<u64>() >> 16);
    let (routes, held) = (Arc::new(Routes::new(options.shards)), Arc::new(Held::nothing(options.shards)));
    let store = CqlStore::open(cql, held.clone(), options.shards).await.map_err(NodeError::Cql)?;
    let store = Arc::new(store);
    let table: Arc<dyn Ownership> = store.clone();
    let rows: Arc<dyn Store> = store;
    let news = News::new(id, Arc::clone(&routes), Arc::clone(&held));
    let seat = Seat { id, routes: Arc::clone(&routes), held, failures: Some(Arc::clone(&news)) };
    let domain = Domain::join(rows, options, hooks, seat).await?;
    let links = match &place {
        Some(place) => {
            let (name, cookie, tls) = (place.name.clone(), place.cookie.clone(), place.tls.clone());
            let link_options = LinkOptions { id, name, cookie, tls };
            let links = Links::open(place.listen, link_options, domain.receiver(), news.clone()).await?;
            domain.connect(links.clone());
            Some(links)
        }
        None => None,
    };
    let fabric: Arc<dyn Fabric> = match &links {
        Some(links) => Arc::new(Linked(Arc::clone(links))),
        None => Arc::new(Unlinked),
    };
    let member_options = MemberOptions {
        id,
        name: place.as_ref().map_or(NAMELESS, |place| &place.name).to_owned(),
        address: place.map(|place| place.advertise).unwrap_or_default(),
        shards: options.shards,
        terms: Terms::default(),
    };
    let member = Member::start(member_options, Arc::clone(&table), Arc::new(domain.clone()), fabric, news);
    Ok((domain, Membership { member, table, links, routes }))
}
