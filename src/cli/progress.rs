//! Progress of long work, on standard error: a bar for each layer on a terminal, plain lines elsewhere, or JSON.
//!
//! JSON is one object a line. `event` says which; fields may be added, none is taken away:
//!
//! ```text
//! {"event":"resolved","digest":D,"manifest":D,"layers":N,"size_bytes":N}
//! {"event":"layer","phase":"download"|"convert","digest":D,"state":"present"|"started"|"progress"|"done",
//!  "done_bytes":N,"size_bytes":N}
//! {"event":"waiting","why":TEXT,"wait_ms":N}
//! {"event":"warning","text":TEXT}
//! {"event":"converted","layers":N,"entries":N,"tar_bytes":N,"sif_bytes":N}
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::Digest;
use crate::base::sizes::human_size;
use crate::convert::{Event, Report};
use crate::registry::{LayerState, PullEvent};

use super::args::{ProgressArgs, ProgressStyle};
use super::term;

/// Shortest time between two drawings or two JSON lines of progress: what an eye follows.
const PAUSE: Duration = Duration::from_millis(100);
/// Characters of a bar. With label, verb and sizes a line stays below 80.
const BAR_CHARS: u64 = 30;

/// Shows what long work is doing. Dropping it takes the bars away.
#[derive(Debug)]
pub(super) struct Progress {
    shown: Shown,
    state: Mutex<State>,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Warnings only.
    Warnings,
    Lines,
    Bars,
    Json,
}

#[derive(Debug, Default)]
struct State {
    bars: Vec<Bar>,
    /// Lines of bars that stand on the terminal.
    drawn: usize,
    /// The layer that is being converted, with its length.
    converting: Option<(Digest, u64)>,
    /// When progress was shown last.
    last: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bar {
    digest: Digest,
    verb: &'static str,
    done_bytes: u64,
    size_bytes: u64,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Resolved { digest: Digest, manifest: Digest, layers: usize, size_bytes: u64 },
    Layer { phase: &'static str, digest: Digest, state: &'static str, done_bytes: u64, size_bytes: u64 },
    Waiting { why: &'a str, wait_ms: u128 },
    Warning { text: &'a str },
    Converted { layers: usize, entries: u64, tar_bytes: u64, sif_bytes: u64 },
}

impl Progress {
    /// As the flags say. Without a word from them, bars are for a terminal that understands them.
    pub(super) fn new(args: &ProgressArgs) -> Self {
        let shown = match args.progress {
            _ if args.quiet => Shown::Warnings,
            ProgressStyle::Json => Shown::Json,
            ProgressStyle::Tty => Shown::Bars,
            ProgressStyle::Auto if term::shows_bars() => Shown::Bars,
            ProgressStyle::Auto | ProgressStyle::Plain => Shown::Lines,
        };
        Self { shown, state: Mutex::default() }
    }

    /// An event of a pull.
    pub(super) fn pull(&self, event: &PullEvent) {
        match event {
            PullEvent::OtherPlatform { wanted, found } => {
                self.warn(&format!("the image is for {found}, and there is none for {wanted}"));
            }
            PullEvent::MirrorFailed { why } => self.warn(&format!("{why}; asking the next place")),
            PullEvent::Waiting { why, wait } if self.shown == Shown::Json => {
                self.json(&Line::Waiting { why, wait_ms: wait.as_millis() });
            }
            PullEvent::Waiting { why, wait } => {
                self.line(&format!("{why}; next try in {} s", wait.as_secs()));
            }
            &PullEvent::Resolved { top_digest: digest, manifest_digest: manifest, layers, size_bytes } => {
                self.say(&Line::Resolved { digest, manifest, layers, size_bytes }, || {
                    format!("{layers} layers, {}", human_size(size_bytes))
                });
            }
            &PullEvent::Layer { digest, size_bytes, state } => {
                let line = |state, done_bytes| Line::Layer {
                    phase: "download",
                    digest,
                    state,
                    done_bytes,
                    size_bytes,
                };
                let bar = |done_bytes| Bar { digest, verb: "Downloading", done_bytes, size_bytes };
                match state {
                    LayerState::Present => {
                        let text = || format!("{}: Already exists", digest.short());
                        self.say(&line("present", size_bytes), text);
                    }
                    LayerState::Started => self.step(bar(0), &line("started", 0), true),
                    LayerState::Progress { done_bytes } => {
                        self.step(bar(done_bytes), &line("progress", done_bytes), false);
                    }
                    LayerState::Done => {
                        self.take_away(digest);
                        self.say(&line("done", size_bytes), || {
                            format!("{}: Pull complete ({})", digest.short(), human_size(size_bytes))
                        });
                    }
                }
            }
        }
    }

    /// An event of a conversion.
    pub(super) fn convert(&self, event: Event) {
        let (state, done_bytes) = match event {
            Event::LayerStarted { digest, size_bytes, .. } => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.converting = Some((digest, size_bytes));
                ("started", 0)
            }
            Event::LayerProgress { done_bytes, .. } => ("progress", done_bytes),
            Event::LayerDone { .. } => ("done", u64::MAX),
            Event::Finished => return,
        };
        let converting = self.state.lock().unwrap_or_else(PoisonError::into_inner).converting;
        let Some((digest, size_bytes)) = converting else { return };
        let done_bytes = done_bytes.min(size_bytes);
        let line = Line::Layer { phase: "convert", digest, state, done_bytes, size_bytes };
        let bar = Bar { digest, verb: "Converting", done_bytes, size_bytes };
        self.step(bar, &line, state != "progress");
        if state == "done" {
            self.take_away(digest);
        }
    }

    /// The conversion has ended.
    pub(super) fn converted(&self, layers: usize, report: &Report) {
        let &Report { entries, tar_bytes, sif_bytes, .. } = report;
        self.say(&Line::Converted { layers, entries, tar_bytes, sif_bytes }, || {
            format!("Converted: {}", words(layers, report))
        });
        report.warnings.iter().for_each(|warning| self.warn(&warning.to_string()));
    }

    /// Something that a user must know, also with `--quiet`.
    pub(super) fn warn(&self, text: &str) {
        if self.shown == Shown::Json {
            return self.json(&Line::Warning { text });
        }
        self.line(&format!("warning: {text}"));
    }

    fn say(&self, line: &Line<'_>, text: impl FnOnce() -> String) {
        match self.shown {
            Shown::Json => self.json(line),
            Shown::Lines | Shown::Bars => self.line(&text()),
            Shown::Warnings => {}
        }
    }

    fn json(&self, line: &Line<'_>) {
        let text = serde_json::to_string(line).expect("a line has only texts and numbers");
        term::note(&text);
    }

    /// A line that stays, above the bars.
    fn line(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        term::draw(&state.erase());
        term::note(&text);
        term::draw(&state.draw());
    }

    /// A layer has come so far. What is not `important` may go unseen.
    fn step(&self, bar: Bar, line: &Line<'_>, important: bool) {
        if !matches!(self.shown, Shown::Bars | Shown::Json) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = state.last.is_none_or(|last| now.duration_since(last) >= PAUSE);
        if is_due {
            state.last = Some(now);
        }
        if self.shown == Shown::Json {
            drop(state);
            if is_due || important {
                self.json(line);
            }
            return;
        }
        match state.bars.iter_mut().find(|known| known.digest == bar.digest) {
            Some(known) => *known = bar,
            None => state.bars.push(bar),
        }
        if is_due {
            let out = state.erase() + &state.draw();
            term::draw(&out);
        }
    }

    fn take_away(&self, digest: Digest) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bars.retain(|bar| bar.digest != digest);
    }
}

/// What a conversion did, in words.
fn words(layers: usize, report: &Report) -> String {
    let &Report { entries, tar_bytes, sif_bytes, .. } = report;
    format!("{layers} layers, {entries} entries, {} to {}", human_size(tar_bytes), human_size(sif_bytes))
}

impl Drop for Progress {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.drawn > 0 {
            term::draw(&state.erase());
        }
    }
}

impl State {
    /// What takes the drawn bars away: up to the first of them, and all below cleared.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}A\r\x1b[J"),
        }
    }

    /// All bars. Lines are not wrapped, since a wrapped one would be two to go up by.
    fn draw(&mut self) -> String {
        if self.bars.is_empty() {
            return String::new();
        }
        self.drawn = self.bars.len();
        let lines: String = self.bars.iter().map(|bar| bar.line() + "\n").collect();
        format!("\x1b[?7l{lines}\x1b[?7h")
    }
}

impl Bar {
    fn line(&self) -> String {
        let Self { digest, verb, done_bytes, size_bytes } = self;
        let done = u128::from(*done_bytes.min(size_bytes)) * u128::from(BAR_CHARS);
        let filled = usize::try_from(done / u128::from(*size_bytes).max(1)).unwrap_or(0);
        let bar = "=".repeat(filled) + ">";
        let width = usize::try_from(BAR_CHARS).unwrap_or(0) + 1;
        format!(
            "{}: {verb:<11} [{bar:<width$}] {}/{}",
            digest.short(),
            human_size(*done_bytes),
            human_size(*size_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(done_bytes: u64, size_bytes: u64) -> Bar {
        Bar { digest: Digest::from_bytes([0xab; 32]), verb: "Converting", done_bytes, size_bytes }
    }

    #[test]
    fn a_bar_stays_within_its_line() {
        for (done_bytes, size_bytes, expected) in [
            (0, 0, "abababababab: Converting  [>                              ] 0B/0B"),
            (5, 10, "abababababab: Converting  [===============>               ] 5B/10B"),
            (10, 10, "abababababab: Converting  [==============================>] 10B/10B"),
            (99, 10, "abababababab: Converting  [==============================>] 99B/10B"),
        ] {
            assert_eq!(bar(done_bytes, size_bytes).line(), expected);
        }
        assert!(bar(u64::MAX, u64::MAX).line().len() < 80);
    }

    #[test]
    fn bars_are_drawn_over_those_before() {
        let mut state = State { bars: vec![bar(1, 2), bar(2, 2)], ..State::default() };
        assert_eq!(state.erase(), "");
        let drawn = state.draw();
        assert!(drawn.starts_with("\x1b[?7labab") && drawn.ends_with("\n\x1b[?7h"), "{drawn:?}");
        assert_eq!(state.erase(), "\x1b[2A\r\x1b[J");
        state.bars.clear();
        assert_eq!((state.draw(), state.erase()), (String::new(), String::new()));
    }

    #[test]
    fn lines_of_json() {
        let digest = Digest::from_bytes([0; 32]);
        let line = Line::Layer { phase: "convert", digest, state: "done", done_bytes: 1, size_bytes: 2 };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            format!(
                r#"{{"event":"layer","phase":"convert","digest":"{digest}","state":"done","done_bytes":1,"size_bytes":2}}"#
            )
        );
    }
}
