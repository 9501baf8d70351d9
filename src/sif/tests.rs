use super::*;
use crate::base::Hint as _;

/// A partition of zeros behind three small objects.
fn sample() -> Vec<u8> {
    let json = |name, data: &[u8]| DraftObject { kind: ObjectKind::GenericJson, name, data: data.to_vec() };
    let small = vec![
        DraftObject { kind: ObjectKind::Deffile, name: "", data: b"bootstrap: docker\n".to_vec() },
        json(INSPECT_METADATA, b"{\"data\":{}}"),
        json(OCI_CONFIG, b"{}"),
    ];
    let mut file = Draft::new(small, "arm64", 1_700_000_000).unwrap().head(8192).unwrap();
    file.resize(file.len() + 8192, 0);
    file
}

/// Where slot `slot` (from 0) begins.
fn slot_at(slot: usize) -> usize {
    4096 + slot * record::DESCRIPTOR_BYTES
}

#[test]
fn what_is_written_reads_back() {
    let file = sample();
    let sif = Sif::read(&file).unwrap();
    assert_eq!(architecture_name(sif.header.architecture), Some("arm64"));
    assert_eq!((sif.header.free_slots, sif.header.created), (44, 1_700_000_000));
    assert_eq!(sif.header.data_offset_bytes, 32_176);
    assert_eq!(sif.header.data_size_bytes, i64::try_from(file.len()).unwrap() - 32_176);

    let deffile = &sif.objects[0];
    assert_eq!((deffile.kind, deffile.id, deffile.group), (ObjectKind::Deffile, 1, Some(1)));
    assert_eq!((deffile.offset_bytes, deffile.size_bytes, deffile.padded_bytes), (32_176, 18, 18));
    let config = sif.find_json(OCI_CONFIG).unwrap();
    assert_eq!((config.offset_bytes, config.size_bytes), (32_176 + 18 + 11, 2));
    assert!(sif.find_json(IMAGE_CONFIG).is_none());

    let primary = sif.primary().unwrap();
    assert_eq!((primary.offset_bytes, primary.size_bytes), (32_768, 8192));
    assert_eq!(primary.padded_bytes, 8192 + 32_768 - (32_176 + 18 + 11 + 2));
    assert_eq!(primary.offset_bytes + primary.size_bytes, file.len() as u64);
}

#[test]
fn too_much_for_a_sif_is_refused() {
    let object = DraftObject { kind: ObjectKind::GenericJson, name: "x", data: Vec::new() };
    assert!(Draft::new(vec![object.clone(); 47], "", 0).unwrap().head(0).is_ok());
    assert_eq!(Draft::new(vec![object; 48], "", 0).unwrap_err(), DraftError::TooMany { count: 49 });
    let long: &'static str = "x".repeat(129).leak();
    let object = DraftObject { kind: ObjectKind::GenericJson, name: long, data: Vec::new() };
    assert_eq!(
        Draft::new(vec![object], "", 0).unwrap().head(0).unwrap_err(),
        DraftError::TooLarge { name: long.to_owned() }
    );
    assert!(Draft::new(Vec::new(), "", 0).unwrap().head(u64::MAX).is_err());
}

#[test]
fn errors_in_words() {
    let check = |edit: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut file = sample();
        edit(&mut file);
        let error = Sif::read(&file).and_then(|sif| sif.primary().cloned()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let put = |at: usize, bytes: &'static [u8]| {
        move |file: &mut Vec<u8>| file[at..at + bytes.len()].copy_from_slice(bytes)
    };
    let negative = &[0xff; 8];
    check(&|file| file.truncate(0), "there is no SIF header");
    check(&|file| file.truncate(60), "file is cut short: have 60 bytes, needs 128");
    check(&|file| file.truncate(5000), "file is cut short: have 5000 bytes, needs 32176");
    check(&|file| file.truncate(40_000), "file is cut short: have 40000 bytes, needs 40960");
    check(&put(32, b"SIX"), "there is no SIF header");
    check(&put(42, b"02"), "SIF version `02` is not known, only 01 is");
    check(&put(88, negative), "header: number of descriptors -1 makes no sense");
    check(
        &put(88, &[0, 0, 0, 0, 0, 0, 0, 1]),
        "header: number of descriptors 72057594037927936 makes no sense",
    );
    check(&put(96, negative), "header: offset of the descriptors -1 makes no sense");
    check(&put(120, negative), "header: size of the data -1 makes no sense");
    check(&put(slot_at(1) + 25, negative), "descriptor 2: size below 0 makes no sense");
    check(
        &put(slot_at(3) + 17, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        "file is cut short: have 40960 bytes, needs 9223372036854783999",
    );
    let file_system = slot_at(3) + 201;
    check(&put(file_system, &[2]), "the root file system is ext3, only squashfs is supported");
    check(&put(file_system, &[3]), "the root file system is an archive, only squashfs is supported");
    check(&put(file_system, &[5]), "the root file system is encrypted (LUKS2), which is not supported");
    check(&put(file_system, &[6]), "the root file system is encrypted (gocryptfs), which is not supported");
    check(&put(file_system, &[9]), "the root file system is of unknown type 9, only squashfs is supported");
    check(&put(slot_at(3) + 4, &[0]), "the SIF has no primary partition: it holds no root file system");
    check(&put(slot_at(3), &[0x0a]), "this is an OCI-SIF of SingularityCE, a format that is not supported");
    check(
        &|file| {
            let primary = file[slot_at(3)..slot_at(4)].to_vec();
            file[slot_at(4)..slot_at(5)].copy_from_slice(&primary);
        },
        "the SIF has 2 primary partitions instead of one",
    );
}

#[test]
fn hints_say_one_thing_to_do() {
    assert_eq!(
        SifError::CutShort { have_bytes: 1, need_bytes: 2 }.hint().as_deref(),
        Some("download or copy the file again")
    );
    assert!(SifError::NoPrimary.hint().is_none());
}

/// The layout of Singularity 3.8: data at 32768, every object aligned, owners, a signature that speaks of the group.
#[test]
fn older_files_are_read_alike() {
    let mut file = sample();
    let partition = file.split_off(32_768);
    file[112..120].copy_from_slice(&32_768_i64.to_le_bytes());
    for (slot, offset) in [(0, 32_768_i64), (1, 36_864), (2, 40_960), (3, 45_056)] {
        file[slot_at(slot) + 17..slot_at(slot) + 25].copy_from_slice(&offset.to_le_bytes());
        file[slot_at(slot) + 57..slot_at(slot) + 65].copy_from_slice(&1000_i64.to_le_bytes());
    }
    let mut signature = vec![0; record::DESCRIPTOR_BYTES];
    signature[..4].copy_from_slice(&0x4005_i32.to_le_bytes());
    signature[4..17].copy_from_slice(&[1, 5, 0, 0, 0, 0, 0, 0, 0xf0, 1, 0, 0, 0xf0]);
    signature[17..25].copy_from_slice(&53_248_i64.to_le_bytes());
    signature[25] = 3;
    file[slot_at(4)..slot_at(5)].copy_from_slice(&signature);
    file.resize(45_056, 0);
    file.extend_from_slice(&partition);
    file.extend_from_slice(b"sig");

    let sif = Sif::read(&file).unwrap();
    assert_eq!(sif.primary().unwrap().offset_bytes, 45_056);
    let signature = &sif.objects[4];
    assert_eq!((signature.kind, signature.group), (ObjectKind::Other(0x4005), None));
    assert_eq!(signature.link, 0xf000_0001);
}
