//! Stub.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {}
pub fn run(_args: &ReplayArgs) -> anyhow::Result<u8> {
    Ok(0)
}
