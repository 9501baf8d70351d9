//! SIF files to the byte, and what damaged ones do.

use std::fmt::Write as _;

use slipway::image::Image;
use slipway::sif::{Draft, DraftObject, ObjectKind, Sif};

/// The head of a SIF whose partition is 8192 bytes long.
fn draft() -> Vec<u8> {
    let json = |name, data: &[u8]| DraftObject { kind: ObjectKind::GenericJson, name, data: data.to_vec() };
    let deffile = b"bootstrap: docker\nfrom: x\n".to_vec();
    let small = vec![
        DraftObject { kind: ObjectKind::Deffile, name: "", data: deffile },
        json("inspect-metadata.json", br#"{"a":1}"#),
        json("oci-config.json", b"{}"),
    ];
    Draft::new(small, "amd64", 1_700_000_000).unwrap().head(8192).unwrap()
}

/// A whole file, with a superblock that says 8192 bytes.
fn sif() -> Vec<u8> {
    let mut file = draft();
    let start = file.len();
    file.extend_from_slice(b"hsqs");
    file.resize(start + 40, 0);
    file.extend_from_slice(&8192_u64.to_le_bytes());
    file.resize(start + 8192, 0);
    file
}

/// The golden file was made from the format's description by another program (`struct.pack` of Python), not by ours.
#[test]
fn header_and_descriptors_to_the_byte() {
    let mut text = String::new();
    for (row, bytes) in draft().chunks(16).enumerate().filter(|(_, bytes)| bytes.iter().any(|b| *b != 0)) {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String =
            bytes.iter().map(|&b| if (32..127).contains(&b) { char::from(b) } else { '.' }).collect();
        writeln!(text, "{:06x}  {}  {shown}", row * 16, hex.join(" ")).unwrap();
    }
    assert_eq!(text, include_str!("../fixtures/sif/head.txt"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = sif();
    let sif = Sif::read(&whole).unwrap();
    let end = usize::try_from(sif.primary().unwrap().offset_bytes).unwrap() + 8192;
    assert_eq!(end, whole.len());
    for length in (0..whole.len()).step_by(7).chain(whole.len() - 10..whole.len()) {
        let error = Sif::read(&whole[..length].to_vec()).unwrap_err().to_string();
        let expected = if length < 42 { "there is no SIF header" } else { "file is cut short: have " };
        assert!(error.starts_with(expected), "{length}: {error}");
    }
}

#[test]
fn changed_bytes_never_panic() {
    let whole = sif();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sif");
    // Header and the used slots; the rest is zeros and data.
    let places = (0..128).chain(4096..4096 + 5 * 585);
    for place in places {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[place] ^= value;
            if let Ok(sif) = Sif::read(&changed) {
                let _ = sif.primary();
                let _ = sif.find_json("oci-config.json");
            }
            changed[place] = value;
            if place % 31 == 0 {
                std::fs::write(&path, &changed).unwrap();
                let _ = Image::open(&path);
            }
        }
    }
}
