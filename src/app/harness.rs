//! A gateway on loopback that has one model and no other client, for as long as some work needs it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::sync::oneshot;

use super::{App, AppError};
use crate::backends::llama::LoadWhen;
use crate::config::{Config, DEFAULT_POLICY, Engine};
use crate::measure::{ClientError, Gateway};
use crate::routing::PolicyConfig;
use crate::traffic::PromptStorage;

/// Failure of the gateway itself, not of the work.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    #[error("cannot find the wattgate binary itself: {0}")]
    Binary(#[from] std::io::Error),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Runs `work` with a gateway that serves `model` only and keeps its traffic log below `out`, then
/// stops it.
pub async fn with_gateway<T, E: From<HarnessError>>(
    config: &Config,
    model: &str,
    out: &Path,
    work: impl AsyncFnOnce(Gateway) -> Result<T, E>,
) -> Result<T, E> {
    let engine_binary = std::env::current_exe().map_err(HarnessError::from)?;
    let app = App::build(with_one_model(config, model, out), engine_binary);
    let app = app.await.map_err(HarnessError::from)?;
    let gateway = Gateway::new(format!("http://{}", app.address())).map_err(HarnessError::from)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = app.run_until(async { drop(stopped.await) });
    let working = async {
        let done = work(gateway).await;
        drop(stop);
        done
    };
    let (served, done) = tokio::join!(serving, working);
    let done = done?;
    served.map_err(HarnessError::from)?;
    Ok(done)
}

/// The config reduced to one model that is loaded at the start.
fn with_one_model(config: &Config, model: &str, out: &Path) -> Config {
    let mut config = config.clone();
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // The addresses of the operator are another gateway's.
    config.server.admin_listen = None;
    config.admin.socket = None;
    config.traffic.dir = out.join("traffic");
    config.traffic.prompts = PromptStorage::Off;
    config.models.retain(|name, _| name == model);
    config.policies = BTreeMap::from([(DEFAULT_POLICY.to_owned(), PolicyConfig::default())]);
    DEFAULT_POLICY.clone_into(&mut config.routing.default_policy);
    // The configured profile may be the file that this run is to write.
    config.energy.profile = config.energy.profile.filter(|path| path.exists());
    for (_, model) in &mut config.models {
        if let Engine::Llama(llama) = &mut model.engine {
            llama.load = LoadWhen::Preload;
        }
    }
    config
}
