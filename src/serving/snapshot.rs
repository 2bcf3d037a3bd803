//! One consistent version of models, policies and trained routers, which a request holds to its
//! end.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::models::model::Model;
use super::models::router_handle::LoadedRouter;
use crate::routing::{Aliases, Policy};

/// Everything a decision is made from that a reload can replace. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    /// By name, in the order of the config, which breaks ties.
    pub models: IndexMap<Arc<str>, Arc<Model>>,
    pub policies: BTreeMap<Arc<str>, Arc<Policy>>,
    /// Other names of models and policies.
    pub aliases: Arc<Aliases>,
    /// Models and policies by what an agent's request is for.
    pub request_classes: Arc<Aliases>,
    /// Key of `policies`.
    pub default_policy: Arc<str>,
    /// Deployments in the operator's own network may serve conversations that must stay local.
    pub own_network_is_local: bool,
    pub router: Arc<LoadedRouter>,
    /// Decides for comparison only.
    pub shadow: Option<Arc<LoadedRouter>>,
}
