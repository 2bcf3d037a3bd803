//! Stub.
#[derive(Debug, clap::Args)]
pub struct RouteArgs {}
pub fn run(_args: &RouteArgs) -> anyhow::Result<u8> {
    Ok(0)
}
