//! `slipway tag`: a further name, without a network.

use crate::reference::ImageRef;
use crate::store::RefRecord;

use super::{Session, locate};
use crate::cli::args::TagArgs;
use crate::cli::failure::Failure;

pub(in crate::cli) fn run(args: &TagArgs, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    let (image, _) = locate::image(&store, &args.source)?;
    let target = ImageRef::parse(&args.target)?;
    if target.digest().is_some() {
        return Err(Failure::new(
            format!(
                "cannot name an image `{}`: a digest is not chosen but follows from the content",
                args.target
            ),
            "leave out what follows the `@`",
        ));
    }
    let record = RefRecord { top: None, ..image.record };
    Ok(store.set_name(&target.to_string(), &record)?)
}
