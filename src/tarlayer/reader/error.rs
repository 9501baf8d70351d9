//! Why a tar could not be read.

/// Why a tar could not be read. Offsets count bytes of the uncompressed archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("reading the archive at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// The stream ends within a header block.
    #[error("the archive is truncated: it ends inside a header, at byte {offset}")]
    TruncatedHeader {
        /// Where it ends.
        offset: u64,
    },
    /// The stream ends within the data (or its padding) of a member.
    #[error("the archive is truncated: it ends inside the data of `{member}`, at byte {offset}")]
    TruncatedData {
        /// The member.
        member: String,
        /// Where it ends.
        offset: u64,
    },
    /// A header block whose checksum is wrong: damaged, or no tar at all.
    #[error("the header at byte {offset} has a wrong checksum: the archive is damaged or not a tar")]
    Checksum {
        /// Where the header starts.
        offset: u64,
    },
    /// One block of zeros with something behind it: readers disagree about whether that is the end.
    #[error("one block of zeros stands alone at byte {offset}: the archive is damaged")]
    LoneZeroBlock {
        /// Where it starts.
        offset: u64,
    },
    /// A number field that holds no number, or one out of range.
    #[error("the {field} of `{member}` (header at byte {offset}) is not a valid number")]
    Number {
        /// The field.
        field: &'static str,
        /// The member.
        member: String,
        /// Where the header starts.
        offset: u64,
    },
    /// A malformed extension header.
    #[error("the extension header `{member}` before byte {offset} is malformed: {reason}")]
    Extension {
        /// What is wrong.
        reason: &'static str,
        /// The extension header's own name.
        member: String,
        /// Where its data ends.
        offset: u64,
    },
    /// An extension header that is larger than any real one.
    #[error(
        "the extension header `{member}` at byte {offset} has {size_bytes} bytes, the limit is {limit_bytes}"
    )]
    ExtensionTooLarge {
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// The extension header's own name.
        member: String,
        /// Where the header starts.
        offset: u64,
    },
    /// Two extension headers of one kind before one member: readers disagree about what that means.
    #[error("two extension headers of type `{typeflag}` describe one member, at byte {offset}")]
    RepeatedExtension {
        /// The type.
        typeflag: char,
        /// Where the second starts.
        offset: u64,
    },
    /// An extension header that no member follows.
    #[error("an extension header is followed by no member, at byte {offset}")]
    LooseExtension {
        /// Where the member should be.
        offset: u64,
    },
    /// A sparse map that contradicts itself or the data.
    #[error("the sparse map of `{member}` (before byte {offset}) is wrong: {reason}")]
    Sparse {
        /// What is wrong.
        reason: &'static str,
        /// The member.
        member: String,
        /// Where reading it stopped.
        offset: u64,
    },
    /// A member of a type that has no place in an image.
    #[error("`{member}` (header at byte {offset}) has the type `{typeflag}`, which is no file of an image")]
    UnknownType {
        /// The type, printable.
        typeflag: String,
        /// The member.
        member: String,
        /// Where the header starts.
        offset: u64,
    },
}

/// Longest name in a message, in bytes.
const SHOWN_NAME_BYTES: usize = 200;

/// A member's name for a message.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(SHOWN_NAME_BYTES)]).into_owned()
}
