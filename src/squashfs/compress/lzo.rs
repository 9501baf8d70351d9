//! LZO1X, decompression only: what `mksquashfs -comp lzo` and enroot make.
//!
//! An instruction is a byte, with more bytes where a number needs them. Each but a run of literals is a copy of bytes
//! that are out already, and ends with up to three literals, whose number is in its low bits (`S`):
//!
//! ```text
//! 1LLDDDSS, 01LDDDSS  D             copy 3 to 8 bytes from at most 2 KiB back
//! 001LLLLL …          DDDDDDSS D    copy any number from at most 16 KiB back
//! 0001HLLL …          DDDDDDSS D    the same from 16 to 48 KiB back; from exactly 16 KiB: the end
//! 0000LLLL …                        run of literals, if no literals stand directly before it
//! 0000DDSS            D             behind 1 to 3 literals: copy 2 bytes from at most 1 KiB back;
//!                                   behind a run of literals: copy 3 bytes from 2 to 3 KiB back
//! ```
//!
//! The first byte may be above 17 and then is a run of that number less 17 literals.
//! See `Documentation/staging/lzo.rst` of Linux.

use std::io;

/// Bytes of the distance from which the far copy counts; a far copy from there means the end.
const FAR_BYTES: usize = 0x4000;
/// Distance of the shortest copy behind a run of literals, in bytes.
const BEHIND_RUN_BYTES: usize = 0x801;
/// Literals that a run has beyond its number.
const RUN_EXTRA: usize = 3;

/// What the bytes before an instruction were.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A copy without literals.
    Copy,
    /// One to three literals.
    FewLiterals,
    /// A run of literals.
    Run,
}

/// Decompresses one block and says how many bytes it gave; more than `output` has room for is an error.
pub(super) fn decompress(input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    let mut state = State { input, output, done: 0 };
    let mut before = Before::Copy;
    if let Some((&first @ 18.., rest)) = input.split_first() {
        state.input = rest;
        let count = usize::from(first - 17);
        state.literals(count)?;
        before = if count > RUN_EXTRA { Before::Run } else { Before::FewLiterals };
    }
    loop {
        let code = state.byte()?;
        let low = usize::from(code);
        let (distance, length, literals) = match (code, before) {
            (64.., _) => (((low >> 2) & 7) + (state.number()? << 3) + 1, (low >> 5) + 1, low & 3),
            (32.., _) => {
                let length = state.length(low & 31, 31)? + 2;
                let word = state.word()?;
                ((word >> 2) + 1, length, word & 3)
            }
            (16.., _) => {
                let length = state.length(low & 7, 7)? + 2;
                let word = state.word()?;
                let distance = ((low & 8) << 11) + (word >> 2);
                if distance == 0 {
                    return state.end();
                }
                (distance + FAR_BYTES, length, word & 3)
            }
            (_, Before::Copy) => {
                let count = state.length(low, 15)? + RUN_EXTRA;
                state.literals(count)?;
                before = Before::Run;
                continue;
            }
            (_, Before::FewLiterals) => ((low >> 2) + (state.number()? << 2) + 1, 2, low & 3),
            (_, Before::Run) => ((low >> 2) + (state.number()? << 2) + BEHIND_RUN_BYTES, 3, low & 3),
        };
        state.copy(distance, length)?;
        state.literals(literals)?;
        before = if literals == 0 { Before::Copy } else { Before::FewLiterals };
    }
}

struct State<'a> {
    /// What is left of the block.
    input: &'a [u8],
    output: &'a mut [u8],
    /// Bytes that are out.
    done: usize,
}

impl State<'_> {
    fn byte(&mut self) -> io::Result<u8> {
        let (first, rest) = self.input.split_first().ok_or_else(cut_off)?;
        self.input = rest;
        Ok(*first)
    }

    fn number(&mut self) -> io::Result<usize> {
        self.byte().map(usize::from)
    }

    fn word(&mut self) -> io::Result<usize> {
        Ok(self.number()? | (self.number()? << 8))
    }

    /// A length: the number in the instruction, or where that is 0 more bytes, each zero among them for 255.
    fn length(&mut self, number: usize, most: usize) -> io::Result<usize> {
        if number != 0 {
            return Ok(number);
        }
        let mut length = most;
        loop {
            match self.number()? {
                0 => length += 255,
                last => return Ok(length + last),
            }
            // No block is longer, and without this a sum of zeros could become any number.
            if length > self.output.len() {
                return Err(too_long());
            }
        }
    }

    fn literals(&mut self, count: usize) -> io::Result<()> {
        let (now, rest) = self.input.split_at_checked(count).ok_or_else(cut_off)?;
        let room = self.output.get_mut(self.done..self.done + count).ok_or_else(too_long)?;
        room.copy_from_slice(now);
        self.input = rest;
        self.done += count;
        Ok(())
    }

    /// Repeats bytes that are out; the copy may overlap what it makes.
    fn copy(&mut self, distance: usize, length: usize) -> io::Result<()> {
        let start = self.done.checked_sub(distance).ok_or_else(|| wrong("copies from before its start"))?;
        let end = self.done + length;
        if end > self.output.len() {
            return Err(too_long());
        }
        while self.done < end {
            let step = (self.done - start).min(end - self.done);
            self.output.copy_within(start..start + step, self.done);
            self.done += step;
        }
        Ok(())
    }

    fn end(&self) -> io::Result<usize> {
        if self.input.is_empty() { Ok(self.done) } else { Err(wrong("has bytes behind its end")) }
    }
}

fn cut_off() -> io::Error {
    wrong("is cut off")
}

fn too_long() -> io::Error {
    wrong("is longer than its block")
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the LZO data {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end: a far copy from exactly 16 KiB.
    const END: [u8; 3] = [0x11, 0, 0];

    fn check(input: &[&[u8]], expected: Result<&[u8], &str>) {
        let mut output = [0; 4096];
        let input = input.concat();
        let found = decompress(&input, &mut output).map(|count| &output[..count]);
        assert_eq!(
            found.map_err(|error| error.to_string()),
            expected.map_err(|what| format!("the LZO data {what}"))
        );
    }

    #[test]
    fn instructions_by_hand() {
        // The instructions are written from the description of the format, not by a compressor.
        check(&[&[17 + 5], b"hello", &END], Ok(b"hello"));
        // Behind a first run of two literals: a copy of two bytes from one back, with one literal.
        check(&[&[17 + 2], b"ab", &[0b0000_0001, 0], b"c", &END], Ok(b"abbbc"));
        // A run of 3 + 1, then a copy of four bytes from two back that overlaps itself.
        check(&[&[0b0000_0001], b"abcd", &[0b0110_0100, 0], &END], Ok(b"abcdcdcd"));
        // A run with one further byte of length: 15 + 1 + 3.
        check(&[&[0, 1], b"0123456789abcdefghi", &END], Ok(b"0123456789abcdefghi"));
        // A copy of 31 + 2 + 2 bytes from one back.
        check(
            &[&[17 + 4], b"wxyz", &[0b0010_0000, 2, 0, 0], &END],
            Ok(b"wxyzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
        );
        // Three bytes from 2,049 back, behind a run: zeros of a long copy reach that far.
        let zeros = [&[17 + 4, b'x', 0, 0, 0, 0b0010_0000][..], &[0; 8], &[9, 0, 0]].concat();
        let mut expected = vec![b'x'];
        expected.resize(4 + 31 + 8 * 255 + 9 + 2, 0);
        let mut run = zeros.clone();
        run.extend([0b0000_0001, b'r', b'u', b'n', b's', 0b0000_0000, 0]);
        expected.extend(b"runs");
        let from = expected.len() - 2049;
        expected.extend_from_within(from..from + 3);
        check(&[&run, &END], Ok(&expected));
    }

    #[test]
    fn damage_is_named() {
        check(&[], Err("is cut off"));
        check(&[&[17 + 5], b"hell"], Err("is cut off"));
        check(&[&[17 + 5], b"hello"], Err("is cut off"));
        check(&[&[17 + 5], b"hello", &END, b"x"], Err("has bytes behind its end"));
        check(&[&[17 + 5], b"hello", &[0b0100_0000, 9], &END], Err("copies from before its start"));
        check(&[&[0; 100], &[1]], Err("is longer than its block"));
        check(&[&[17 + 4], b"abcd", &[0b0010_0000], &[0; 20], &[1, 0, 0]], Err("is longer than its block"));
    }

    #[test]
    fn no_input_panics() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut input = [0; 40];
            for byte in &mut input {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state.to_le_bytes()[0] >> (state.to_le_bytes()[1] % 8);
            }
            let _any = decompress(&input, &mut [0; 300]);
        }
    }
}
