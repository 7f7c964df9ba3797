//! placeholder
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}
pub(crate) fn run(_o: Options) -> Result<(), String> {
    Ok(())
}
