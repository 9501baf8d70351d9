//! The smallest shared libraries that a real loader takes: written by hand, so that no test needs a compiler.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// A function of such a library.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    /// `int name(…) { return 0; }`
    Succeed(&'static str),
    /// `int name(int *place) { *place = value; return 0; }`
    Give(&'static str, u8),
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Succeed(name) | Self::Give(name, _) => name,
        }
    }

    fn code(self) -> Vec<u8> {
        match (self, std::env::consts::ARCH) {
            (Self::Succeed(_), "x86_64") => vec![0x31, 0xc0, 0xc3],
            (Self::Give(_, value), "x86_64") => vec![0xc7, 0x07, value, 0, 0, 0, 0x31, 0xc0, 0xc3],
            (Self::Succeed(_), "aarch64") => [0x5280_0000_u32, 0xd65f_03c0].map(u32::to_le_bytes).concat(),
            (Self::Give(_, value), "aarch64") => {
                let load = 0x5280_0001 | u32::from(value) << 5;
                [load, 0xb900_0001, 0x5280_0000, 0xd65f_03c0].map(u32::to_le_bytes).concat()
            }
            (_, other) => panic!("no machine code for {other}"),
        }
    }
}

/// The library with a section of one note behind it, as NVIDIA's compatibility libraries have one.
pub(crate) fn with_note(mut library: Vec<u8>, section: &str, owner: &str, text: &str) -> Vec<u8> {
    let names = format!("\0{section}\0.shstrtab\0");
    let mut name: Vec<u8> = owner.bytes().chain([0]).collect();
    let mut note =
        [name.len(), text.len(), 1].map(|number| u32::try_from(number).unwrap().to_le_bytes()).concat();
    name.resize(name.len().next_multiple_of(4), 0);
    note.extend(name);
    note.extend(text.as_bytes());
    let mut add = |bytes: &[u8]| {
        library.resize(library.len().next_multiple_of(8), 0);
        let at = library.len();
        library.extend(bytes);
        at as u64
    };
    let (names_at, note_at) = (add(names.as_bytes()), add(&note));
    let mut headers = vec![0; 64];
    for (name, kind, at, size, align) in
        [(section.len() + 2, 3_u32, names_at, names.len(), 1_u64), (1, 7, note_at, note.len(), 4)]
    {
        headers.extend([u32::try_from(name).unwrap(), kind].map(u32::to_le_bytes).concat());
        headers.extend([0, 0, at, size as u64].map(u64::to_le_bytes).concat());
        headers.extend([0; 8]);
        headers.extend([align, 0].map(u64::to_le_bytes).concat());
    }
    let table = add(&headers);
    library[40..48].copy_from_slice(&table.to_le_bytes());
    library[58..64].copy_from_slice(&[64_u16, 3, 1].map(u16::to_le_bytes).concat());
    library
}

/// A 64-bit little-endian shared library for this machine.
pub(crate) fn shared_library(soname: &str, functions: &[Function]) -> Vec<u8> {
    const HEADERS: usize = 64 + 3 * 56;
    let machine: u16 = match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        other => panic!("no machine number for {other}"),
    };
    let mut strings = vec![0];
    let mut add_string = |text: &str| {
        let place = strings.len() as u64;
        strings.extend(text.bytes().chain([0]));
        place
    };
    let soname = add_string(soname);
    let names: Vec<u64> = functions.iter().map(|function| add_string(function.name())).collect();

    let dynamic_at = HEADERS;
    let symbols_at = dynamic_at + 7 * 16;
    let hash_at = symbols_at + (functions.len() + 1) * 24;
    let code_at = (hash_at + (3 + functions.len() + 1) * 4).next_multiple_of(16);

    let (mut code, mut symbols) = (Vec::new(), vec![0; 24]);
    for (function, name) in functions.iter().zip(&names) {
        let start = code_at + code.len();
        let bytes = function.code();
        symbols.extend(u32::try_from(*name).unwrap().to_le_bytes());
        // A global function in section 1: any number but 0 means defined.
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend((start as u64).to_le_bytes());
        symbols.extend((bytes.len() as u64).to_le_bytes());
        code.extend(bytes);
        code.resize(code.len().next_multiple_of(16), 0);
    }
    // One bucket, whose chain goes over all symbols.
    let count = u32::try_from(functions.len()).unwrap() + 1;
    let mut hash: Vec<u32> = vec![1, count, u32::from(count > 1), 0];
    hash.extend((1..count).map(|index| if index + 1 < count { index + 1 } else { 0 }));

    let strings_at = code_at + code.len();
    let size = (strings_at + strings.len()) as u64;
    let dynamic: [(u64, usize); 7] = [
        (14, usize::try_from(soname).unwrap()),
        (4, hash_at),
        (5, strings_at),
        (10, strings.len()),
        (6, symbols_at),
        (11, 24),
        (0, 0),
    ];

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([3_u16, machine].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    file.extend([0_u64, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 3, 64, 0, 0].map(u16::to_le_bytes).concat());
    let (all, dynamic_bytes) = (7_u32, dynamic.len() as u64 * 16);
    // PT_LOAD of the whole file, PT_DYNAMIC, and PT_GNU_STACK, without which the loader makes the stack executable.
    for (kind, flags, at, bytes, align) in
        [(1, all, 0, size, 4096), (2, 6, dynamic_at as u64, dynamic_bytes, 8), (0x6474_e551, 6, 0, 0, 16)]
    {
        file.extend([kind, flags].map(u32::to_le_bytes).concat());
        file.extend([at, at, at, bytes, bytes, align].map(u64::to_le_bytes).concat());
    }
    assert_eq!(file.len(), HEADERS);
    for (tag, value) in dynamic {
        file.extend([tag, value as u64].map(u64::to_le_bytes).concat());
    }
    file.extend(symbols);
    file.extend(hash.into_iter().flat_map(u32::to_le_bytes));
    file.resize(code_at, 0);
    file.extend(code);
    file.extend(strings);
    file
}
