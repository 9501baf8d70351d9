//! Names of many nodes in short, as Slurm writes them: `gpu[001-128],login[1-2]`.
//!
//! The grammar is that of Slurm's `src/common/hostlist.c`: names lie between commas and blanks; a bracket group holds
//! numbers and ranges; several groups in a name multiply, the last one turning fastest; a range is written with as many
//! digits as its lower bound has; order and duplicates are kept. Functions (`block{…}`), which only slurmctld can
//! expand, are refused.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// Most numbers of one range, and most names that one expression with several groups stands for (Slurm's own limits).
const MAX_MEMBERS: u64 = 65_536;
/// Most names of a whole list, so that a short text cannot take much memory.
const MAX_NAMES: u64 = 1 << 20;
/// Most bytes of all its names together.
const MAX_BYTES: u64 = 64 << 20;
/// Most bracket groups of one name. Slurm's limit on names bounds them, too, unless each has a single member.
const MAX_GROUPS: usize = 16;
/// Most digits of a number.
const MAX_DIGITS: usize = 18;

/// A list of names that is not written out.
///
/// ```
/// use slipway::base::Hostlist;
/// let nodes = Hostlist::parse("gpu[08-10,12],login1").unwrap();
/// assert_eq!(nodes.names(), ["gpu08", "gpu09", "gpu10", "gpu12", "login1"]);
/// assert!(nodes.contains("gpu09") && !nodes.contains("gpu9"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hostlist {
    expressions: Vec<Vec<Part>>,
}

/// A piece of one expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Ranges(Vec<Range>),
}

/// `08-12`: both bounds belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: u64,
    high: u64,
    /// Digits that a number has at least.
    width: usize,
}

/// Why a text is no host list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no list of nodes: position {position}: {reason}")]
pub struct HostlistError {
    /// The whole text.
    pub text: String,
    /// The byte at which it goes wrong, from 1.
    pub position: usize,
    /// What is wrong there.
    pub reason: Fault,
}

/// What can be wrong at one position of a host list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each says what it is")]
pub enum Fault {
    #[error("the bracket is not closed")]
    NotClosed,
    #[error("there is no bracket to close")]
    NotOpened,
    #[error("a number is expected")]
    NoNumber,
    #[error("the number is too long")]
    LongNumber,
    #[error("the range runs backwards")]
    Backwards,
    #[error("more than {MAX_MEMBERS} names")]
    TooMany,
    #[error("more than {MAX_GROUPS} bracket groups in a name")]
    TooManyGroups,
    #[error("only Slurm's controller can expand a function")]
    Function,
}

impl Hostlist {
    /// Reads an expression. Blanks and empty items are passed over, so that the empty text is the empty list.
    pub fn parse(text: &str) -> Result<Self, HostlistError> {
        let mut parser = Parser { text, at: 0 };
        let mut expressions = Vec::new();
        let (mut total, mut bytes) = (0, 0_u64);
        loop {
            let start = parser.at;
            match parser.expression() {
                Ok(None) => return Ok(Self { expressions }),
                Ok(Some(parts)) => {
                    total += count(&parts);
                    bytes = bytes.saturating_add(count(&parts).saturating_mul(longest(&parts)));
                    expressions.push(parts);
                    if total > MAX_NAMES || bytes > MAX_BYTES {
                        return Err(parser.error(start, Fault::TooMany));
                    }
                }
                Err((at, fault)) => return Err(parser.error(at, fault)),
            }
        }
    }

    /// All names, in order, duplicates kept.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for parts in &self.expressions {
            let mut heads = vec![String::new()];
            for part in parts {
                heads = match part {
                    Part::Text(text) => heads.into_iter().map(|head| head + text).collect(),
                    Part::Ranges(ranges) => heads
                        .iter()
                        .flat_map(|head| {
                            ranges.iter().flat_map(move |Range { low, high, width }| {
                                (*low..=*high).map(move |number| format!("{head}{number:0width$}"))
                            })
                        })
                        .collect(),
                };
            }
            names.append(&mut heads);
        }
        names
    }

    /// Whether a name is of the list. Nothing is written out for that.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.expressions.iter().any(|parts| matches(parts, name))
    }

    /// Whether it stands for no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }
}

impl fmt::Display for Hostlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, parts) in self.expressions.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            for part in parts {
                match part {
                    Part::Text(text) => f.write_str(text)?,
                    Part::Ranges(ranges) => write_ranges(f, ranges)?,
                }
            }
        }
        Ok(())
    }
}

/// A short list with the same names: those that differ only in the number at their end share a bracket, in the order in
/// which the first of them came, their numbers sorted. Duplicates go. (Slurm reads a text behind the last bracket only
/// from 23.02 on, so that none is written.)
impl<S: AsRef<str>> FromIterator<S> for Hostlist {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut groups: Vec<(String, Vec<(u64, usize)>)> = Vec::new();
        let mut places = HashMap::new();
        for name in names {
            let (head, number) = split_number(name.as_ref());
            let place = *places.entry((head.to_owned(), number.is_some())).or_insert_with(|| {
                groups.push((head.to_owned(), Vec::new()));
                groups.len() - 1
            });
            if let (Some(number), Some((_, numbers))) = (number, groups.get_mut(place)) {
                numbers.push(number);
            }
        }
        let expression = |(head, mut numbers): (String, Vec<(u64, usize)>)| {
            numbers.sort_unstable();
            numbers.dedup();
            let text = (!head.is_empty()).then_some(Part::Text(head));
            let ranges = (!numbers.is_empty()).then(|| Part::Ranges(join(&numbers)));
            text.into_iter().chain(ranges).collect()
        };
        Self { expressions: groups.into_iter().map(expression).collect() }
    }
}

/// Sorted numbers, each with the digits it was written with, to ranges that print them alike.
fn join(numbers: &[(u64, usize)]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    // Numbers of one value in two spellings (`1`, `01`) lie side by side, so that a range is sought among all.
    for &(number, digits) in numbers {
        let fits = |range: &&mut Range| {
            range.high.checked_add(1) == Some(number)
                && digits == range.width.max(decimal_digits(number))
                && range.high - range.low + 1 < MAX_MEMBERS
        };
        match ranges.iter_mut().rev().take(4).find(fits) {
            Some(range) => range.high = number,
            None => ranges.push(Range { low: number, high: number, width: digits }),
        }
    }
    ranges
}

fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |power| power as usize + 1)
}

fn write_ranges(f: &mut fmt::Formatter<'_>, ranges: &[Range]) -> fmt::Result {
    if let [Range { low, high, width }] = ranges
        && low == high
    {
        return write!(f, "{low:0width$}");
    }
    f.write_str("[")?;
    for (index, Range { low, high, width }) in ranges.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(f, "{comma}{low:0width$}")?;
        if high > low {
            write!(f, "-{high:0width$}")?;
        }
    }
    f.write_str("]")
}

/// `gpu007` to `gpu` and the number 7 of three digits. A number that is too long belongs to the text.
fn split_number(name: &str) -> (&str, Option<(u64, usize)>) {
    let head = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[head.len()..];
    match digits.parse() {
        Ok(number) if digits.len() <= MAX_DIGITS => (head, Some((number, digits.len()))),
        _ => (name, None),
    }
}

/// How many names an expression stands for; at most [`MAX_MEMBERS`] where it has several groups.
fn count(parts: &[Part]) -> u64 {
    parts.iter().fold(1, |product: u64, part| match part {
        Part::Text(_) => product,
        Part::Ranges(ranges) => {
            product.saturating_mul(ranges.iter().map(|range| range.high - range.low + 1).sum())
        }
    })
}

/// Bytes of its longest name, at most.
fn longest(parts: &[Part]) -> u64 {
    let length = |part: &Part| match part {
        Part::Text(text) => text.len(),
        Part::Ranges(_) => MAX_DIGITS,
    };
    parts.iter().map(length).sum::<usize>() as u64
}

/// Two groups side by side may cut a run of digits anywhere, so that all places where a part can end are followed at once:
/// the work is bounded by the lengths of both.
fn matches(parts: &[Part], name: &str) -> bool {
    let mut places = BTreeSet::from([0]);
    for part in parts {
        let mut next = BTreeSet::new();
        for rest in places.iter().filter_map(|place| name.get(*place..)) {
            let place = name.len() - rest.len();
            match part {
                Part::Text(text) => {
                    next.extend(rest.starts_with(text.as_str()).then_some(place + text.len()))
                }
                Part::Ranges(ranges) => {
                    let digits = rest.bytes().take_while(u8::is_ascii_digit).take(MAX_DIGITS).count();
                    let written = |length: &usize| {
                        rest.get(..*length).is_some_and(|head| ranges.iter().any(|range| range.writes(head)))
                    };
                    next.extend((1..=digits).filter(written).map(|length| place + length));
                }
            }
        }
        places = next;
    }
    places.contains(&name.len())
}

impl Range {
    /// Whether the text is one of the numbers as this range writes them.
    fn writes(&self, text: &str) -> bool {
        let Ok(number) = text.parse::<u64>() else { return false };
        (self.low..=self.high).contains(&number) && text.len() == self.width.max(decimal_digits(number))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

type Failed = (usize, Fault);

impl Parser<'_> {
    fn error(&self, at: usize, reason: Fault) -> HostlistError {
        HostlistError { text: self.text.to_owned(), position: at + 1, reason }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn is_separator(byte: u8) -> bool {
        matches!(byte, b',' | b' ' | b'\t' | b'\n')
    }

    /// The next name with its groups; `None` at the end.
    fn expression(&mut self) -> Result<Option<Vec<Part>>, Failed> {
        while self.peek().is_some_and(Self::is_separator) {
            self.at += 1;
        }
        let (begin, mut start) = (self.at, self.at);
        let mut parts = Vec::new();
        let mut groups = 0;
        loop {
            let text = &self.text[start..self.at];
            match self.peek() {
                None | Some(b',' | b' ' | b'\t' | b'\n') => {
                    if !text.is_empty() {
                        parts.push(Part::Text(text.to_owned()));
                    }
                    return Ok((!parts.is_empty()).then_some(parts));
                }
                Some(b'[') => {
                    if !text.is_empty() {
                        parts.push(Part::Text(text.to_owned()));
                    }
                    groups += 1;
                    if groups > MAX_GROUPS {
                        return Err((self.at, Fault::TooManyGroups));
                    }
                    parts.push(Part::Ranges(self.group()?));
                    if count(&parts) > MAX_MEMBERS && groups > 1 {
                        return Err((begin, Fault::TooMany));
                    }
                    start = self.at;
                }
                Some(b']') => return Err((self.at, Fault::NotOpened)),
                Some(b'{' | b'}') => return Err((self.at, Fault::Function)),
                Some(_) => self.at += 1,
            }
        }
    }

    /// From `[` to behind `]`.
    fn group(&mut self) -> Result<Vec<Range>, Failed> {
        let open = self.at;
        let mut ranges = Vec::new();
        loop {
            self.at += 1;
            let begin = self.at;
            let (low, width) = self.number(open)?;
            let mut high = low;
            if self.peek() == Some(b'-') {
                self.at += 1;
                (high, _) = self.number(open)?;
            }
            if high < low {
                return Err((begin, Fault::Backwards));
            }
            if high - low >= MAX_MEMBERS {
                return Err((begin, Fault::TooMany));
            }
            ranges.push(Range { low, high, width });
            match self.peek() {
                Some(b',') => {}
                Some(b']') => {
                    self.at += 1;
                    return Ok(ranges);
                }
                None => return Err((open, Fault::NotClosed)),
                Some(_) => return Err((self.at, Fault::NoNumber)),
            }
        }
    }

    /// A number and the digits it is written with.
    fn number(&mut self, open: usize) -> Result<(u64, usize), Failed> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if digits.is_empty() {
            let fault =
                if self.peek().is_none() { (open, Fault::NotClosed) } else { (start, Fault::NoNumber) };
            return Err(fault);
        }
        if digits.len() > MAX_DIGITS {
            return Err((start, Fault::LongNumber));
        }
        digits.parse().map(|number| (number, digits.len())).map_err(|_| (start, Fault::LongNumber))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expands_in_order() {
        for (text, expected) in [
            ("", ""),
            (" , \t", ""),
            ("n1", "n1"),
            ("n[1-3]", "n1 n2 n3"),
            ("n[08-11]", "n08 n09 n10 n11"),
            ("n[8-11]", "n8 n9 n10 n11"),
            ("n[3,1,1]", "n3 n1 n1"),
            ("a[1-2]b[3-4]", "a1b3 a1b4 a2b3 a2b4"),
            ("a[1-2][0-1]", "a10 a11 a20 a21"),
            ("n[1-2]-ib,x y\tz\nw", "n1-ib n2-ib x y z w"),
            ("[1-2]", "1 2"),
        ] {
            assert_eq!(Hostlist::parse(text).unwrap().names().join(" "), expected, "{text}");
        }
        assert_eq!(Hostlist::parse("n[0-65535]").unwrap().names().len(), 65_536);
    }

    #[test]
    fn says_where_it_goes_wrong() {
        for (text, position, reason) in [
            ("n[1-3", 2, "the bracket is not closed"),
            ("n[", 2, "the bracket is not closed"),
            ("n[1,", 2, "the bracket is not closed"),
            ("n1]", 3, "there is no bracket to close"),
            ("n[]", 3, "a number is expected"),
            ("n[-1]", 3, "a number is expected"),
            ("a,n[1-x]", 7, "a number is expected"),
            ("n[1x]", 4, "a number is expected"),
            ("n[1-2-3]", 6, "a number is expected"),
            ("n[[1]]", 3, "a number is expected"),
            ("n[2-1]", 3, "the range runs backwards"),
            ("n[0-65536]", 3, "more than 65536 names"),
            ("a[0-999]b[0-999]", 1, "more than 65536 names"),
            ("n[1234567890123456789]", 3, "the number is too long"),
            ("block{b1}", 6, "only Slurm's controller can expand a function"),
            (&"[1]".repeat(17), 49, "more than 16 bracket groups in a name"),
        ] {
            let error = Hostlist::parse(text).unwrap_err();
            let expected = format!("`{text}` is no list of nodes: position {position}: {reason}");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_short_text_does_not_become_a_long_list() {
        for text in [vec!["n[0-65535]"; 17].join(","), format!("{}[0-65535]", "n".repeat(2000))] {
            assert_eq!(Hostlist::parse(&text).unwrap_err().reason, Fault::TooMany);
        }
        let groups = Hostlist::parse(&"[1,11,111]".repeat(9)).unwrap();
        assert!(!groups.contains(&format!("{}2", "1".repeat(300))));
    }

    #[test]
    fn names_are_put_together() {
        for (names, expected) in [
            ("", ""),
            ("a", "a"),
            ("n1 n2 n3", "n[1-3]"),
            ("n3 n1 n2 n2", "n[1-3]"),
            ("n9 n10 n11", "n[9-11]"),
            ("n09 n10 n100", "n[09-10,100]"),
            ("n1 n01", "n[1,01]"),
            ("n1 x n2 m1-ib m2-ib", "n[1-2],x,m1-ib,m2-ib"),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            let list: Hostlist = names.split_whitespace().collect();
            assert_eq!(list.to_string(), expected, "{names}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c0-9\\[\\],{} -]{0,24}") {
            if let Ok(list) = Hostlist::parse(&text) {
                let names = list.names();
                prop_assert!(names.iter().take(100).all(|name| list.contains(name)));
                let again = Hostlist::parse(&list.to_string()).unwrap();
                prop_assert_eq!(again.names(), names);
            }
        }

        #[test]
        fn put_together_names_are_the_same(names in proptest::collection::vec("[ab]{1,2}[0-9]{0,3}b?", 0..30)) {
            let list: Hostlist = names.iter().collect();
            let mut written = Hostlist::parse(&list.to_string()).unwrap().names();
            let (mut expected, count) = (names.clone(), written.len());
            expected.sort();
            expected.dedup();
            written.sort();
            written.dedup();
            prop_assert_eq!(written.len(), count);
            prop_assert_eq!(written, expected);
        }

        #[test]
        fn contains_is_to_be_among_the_names(text in "[ab](\\[[0-3](-[4-9])?(,[0-9])?\\]){1,2}b?", name in "[ab][0-9]{1,3}b?") {
            let list = Hostlist::parse(&text).unwrap();
            prop_assert_eq!(list.contains(&name), list.names().contains(&name));
        }
    }
}
