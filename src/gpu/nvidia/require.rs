//! `NVIDIA_REQUIRE_*`: what an image says that the driver and the GPUs must be.
//!
//! Grammar of NVIDIA's container toolkit (`internal/requirements`): between blanks are alternatives, between commas what
//! must hold together, each `property operator value`. Properties are `cuda` (what the driver serves), `driver`, `arch`
//! (compute capability) and `brand`; others are passed over, as there. Pure.

use std::cmp::Ordering;
use std::fmt;

/// Longest value that is looked at, in bytes. Those of CUDA images have about 1,500.
const MAX_BYTES: usize = 16 << 10;
/// Most components of a version that count.
const MAX_COMPONENTS: usize = 8;

/// The CUDA version that each driver branch serves, from the toolkit's release notes ("CUDA Toolkit and Corresponding
/// Driver Versions"): what NVML would say, without asking it at a start.
const CUDA_OF_BRANCH: [(u32, &str); 22] = [
    (410, "10.0"),
    (418, "10.1"),
    (440, "10.2"),
    (450, "11.0"),
    (455, "11.1"),
    (460, "11.2"),
    (465, "11.3"),
    (470, "11.4"),
    (495, "11.5"),
    (510, "11.6"),
    (515, "11.7"),
    (520, "11.8"),
    (525, "12.0"),
    (530, "12.1"),
    (535, "12.2"),
    (545, "12.3"),
    (550, "12.4"),
    (555, "12.5"),
    (560, "12.6"),
    (565, "12.7"),
    (570, "12.8"),
    (575, "12.9"),
];

/// What a host has, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::gpu) struct HostCuda {
    /// Newest CUDA that the driver serves, `12.4`.
    pub(in crate::gpu) cuda: Option<String>,
    /// Version of the driver, `550.54.15`.
    pub(in crate::gpu) driver: Option<String>,
    /// Of each GPU that the container gets: compute capability (`9.0`) and model.
    pub(in crate::gpu) gpus: Vec<(Option<String>, Option<String>)>,
}

/// A requirement that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gpu) struct Unmet {
    /// What the image asks for in the first place: its first alternative.
    pub(in crate::gpu) wanted: String,
    /// How many further alternatives it has, which do not hold either.
    pub(in crate::gpu) others: usize,
    /// What there is instead.
    pub(in crate::gpu) has: String,
}

/// The newest CUDA of a driver by its branch. `None` for a branch that is not in the table.
pub(in crate::gpu) fn cuda_of_driver(version: &str) -> Option<&'static str> {
    let branch = version.split('.').next()?.parse::<u32>().ok()?;
    CUDA_OF_BRANCH.iter().find(|(known, _)| *known == branch).map(|(_, cuda)| *cuda)
}

/// The requirements of an image by its `NAME=value` lines: variable and value. An old CUDA image says only what it was
/// made for.
pub(in crate::gpu) fn requirements(image_env: &[String]) -> Vec<(String, String)> {
    let pairs = || image_env.iter().filter_map(|line| line.split_once('='));
    let is_off = |value: &str| !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "f" | "false");
    if pairs().any(|(name, value)| name == "NVIDIA_DISABLE_REQUIRE" && is_off(value)) {
        return Vec::new();
    }
    let mut found: Vec<(String, String)> = pairs()
        .filter(|(name, _)| {
            name.strip_prefix("NVIDIA_REQUIRE_").is_some_and(|rest| !rest.starts_with("JETPACK"))
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let version = pairs().find(|(name, _)| *name == "CUDA_VERSION").map(|(_, value)| value);
    if let (Some(version), false) = (version, found.iter().any(|(name, _)| name == "NVIDIA_REQUIRE_CUDA")) {
        let short: Vec<&str> = version.split('.').take(2).collect();
        found.push(("CUDA_VERSION".to_owned(), format!("cuda>={}", short.join("."))));
    }
    found
}

/// Checks the value of one variable. What is not known of the host does not make it fail.
pub(in crate::gpu) fn check(value: &str, host: &HostCuda) -> Result<(), Unmet> {
    let value = value.get(..MAX_BYTES).unwrap_or(value);
    let alternatives: Vec<Vec<Term<'_>>> = value.split_whitespace().map(terms).collect();
    // A requirement without a term that is known asks for nothing.
    let mut decided = alternatives.iter().filter(|terms| !terms.is_empty()).peekable();
    let Some(first) = decided.peek() else { return Ok(()) };
    let wanted = first.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let gpus = if host.gpus.is_empty() { &[(None, None)][..] } else { &host.gpus };
    let alternatives: Vec<_> = decided.collect();
    for (arch, model) in gpus {
        let holds = |term: &Term<'_>| term.holds(host, arch.as_deref(), model.as_deref()) != Some(false);
        if !alternatives.iter().any(|terms| terms.iter().all(holds)) {
            let has = describe(host, arch.as_deref(), model.as_deref());
            return Err(Unmet { wanted, others: alternatives.len() - 1, has });
        }
    }
    Ok(())
}

fn describe(host: &HostCuda, arch: Option<&str>, model: Option<&str>) -> String {
    let facts = [
        host.cuda.as_deref().map(|cuda| format!("CUDA {cuda}")),
        host.driver.as_deref().map(|driver| format!("driver {driver}")),
        arch.map(|arch| format!("compute capability {arch}")),
        model.map(str::to_owned),
    ];
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The terms that must hold together. Those of unknown properties are left out.
fn terms(text: &str) -> Vec<Term<'_>> {
    text.split(',').filter_map(Term::parse).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Cuda,
    Driver,
    Arch,
    Brand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term<'a> {
    property: Property,
    operator: &'a str,
    value: &'a str,
}

impl fmt::Display for Term<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let property = match self.property {
            Property::Cuda => "cuda",
            Property::Driver => "driver",
            Property::Arch => "arch",
            Property::Brand => "brand",
        };
        write!(f, "{property}{}{}", self.operator, self.value)
    }
}

impl<'a> Term<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let start = text.find(['=', '!', '<', '>'])?;
        let length = if text.get(start + 1..)?.starts_with('=') { 2 } else { 1 };
        let property = match text.get(..start)? {
            "cuda" => Property::Cuda,
            "driver" => Property::Driver,
            "arch" => Property::Arch,
            "brand" => Property::Brand,
            _ => return None,
        };
        let (operator, value) = (text.get(start..start + length)?, text.get(start + length..)?);
        (!value.is_empty() && operator != "!").then_some(Self { property, operator, value })
    }

    /// Whether it holds; `None` where the host does not say.
    fn holds(&self, host: &HostCuda, arch: Option<&str>, model: Option<&str>) -> Option<bool> {
        let order = match self.property {
            Property::Cuda => compare(host.cuda.as_deref()?, self.value)?,
            Property::Driver => compare(host.driver.as_deref()?, self.value)?,
            Property::Arch => compare(arch?, self.value)?,
            Property::Brand => {
                let same = brand_of(model?).eq_ignore_ascii_case(self.value);
                return match self.operator {
                    "=" | "==" => Some(same),
                    "!=" => Some(!same),
                    // Brands have no order.
                    _ => None,
                };
            }
        };
        Some(match self.operator {
            "=" | "==" => order == Ordering::Equal,
            "!=" => order != Ordering::Equal,
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })
    }
}

/// Compares versions number by number; what is missing is 0. `None` if one is no version.
pub(in crate::gpu) fn compare(left: &str, right: &str) -> Option<Ordering> {
    let numbers = |text: &str| {
        let mut numbers = [0_u64; MAX_COMPONENTS];
        for (index, part) in text.split('.').enumerate() {
            *numbers.get_mut(index)? = part.parse().ok()?;
        }
        Some(numbers)
    };
    Some(numbers(left)?.cmp(&numbers(right)?))
}

/// NVML's name of the brand, from the model. Data-centre GPUs carry no brand in their names and count as Tesla.
fn brand_of(model: &str) -> &'static str {
    let model = model.strip_prefix("NVIDIA ").unwrap_or(model);
    let has = |words: &[&str]| words.iter().any(|word| model.contains(word));
    if has(&["GeForce"]) {
        "geforce"
    } else if has(&["TITAN"]) {
        "titan"
    } else if has(&["Quadro RTX"]) {
        "quadrortx"
    } else if has(&["Quadro"]) {
        "quadro"
    } else if has(&["NVS"]) {
        "nvs"
    } else if has(&["GRID"]) {
        "grid"
    } else if has(&["RTX"]) {
        "nvidiartx"
    } else {
        "tesla"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(cuda: &str, driver: &str, models: &[(&str, &str)]) -> HostCuda {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        HostCuda {
            cuda: known(cuda),
            driver: known(driver),
            gpus: models.iter().map(|(arch, model)| (known(arch), known(model))).collect(),
        }
    }

    #[test]
    fn alternatives_and_what_must_hold_together() {
        let h100 = host("12.4", "550.54.15", &[("9.0", "NVIDIA H100 80GB HBM3")]);
        let unknown = HostCuda::default();
        for (value, expected) in [
            ("", true),
            ("cuda>=12.4", true),
            ("cuda>=12.5", false),
            ("cuda>12.4", false),
            ("cuda<=12.4", true),
            ("cuda=12.4.0", true),
            ("cuda==12.4", true),
            ("cuda!=12.4", false),
            ("cuda<12.10", true),
            ("cuda>=12.6 driver>=550", true),
            ("cuda>=12.6,driver>=550", false),
            ("cuda>=12.6 brand=tesla,driver>=535,driver<536 brand=tesla,driver>=550,driver<551", true),
            ("cuda>=12.6 brand=geforce,driver>=550,driver<551", false),
            ("cuda>=12.6 brand=TESLA", true),
            ("brand!=tesla", false),
            ("arch>=8.0", true),
            ("arch>=10.0", false),
            // What is no term, or of no property that is known, is passed over.
            ("jetpack>=5", true),
            ("cuda>=12.6,", false),
            ("cuda", true),
            ("cuda!12", true),
            ("cuda>=", true),
            ("cuda>=many", true),
        ] {
            assert_eq!(check(value, &h100).is_ok(), expected, "{value}");
            assert!(check(value, &unknown).is_ok(), "{value}");
        }
    }

    #[test]
    fn requirements_of_an_image() {
        let check = |env: &[&str], expected: &[(&str, &str)]| {
            let env: Vec<String> = env.iter().map(|line| (*line).to_owned()).collect();
            let found = requirements(&env);
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{env:?}");
        };
        check(&["PATH=/bin"], &[]);
        check(
            &["NVIDIA_REQUIRE_CUDA=cuda>=12.4", "CUDA_VERSION=12.4.1", "NVIDIA_REQUIRE_JETPACK_HOST_MOUNTS="],
            &[("NVIDIA_REQUIRE_CUDA", "cuda>=12.4")],
        );
        check(&["CUDA_VERSION=8.0.61"], &[("CUDA_VERSION", "cuda>=8.0")]);
        check(&["NVIDIA_REQUIRE_CUDA=cuda>=99", "NVIDIA_DISABLE_REQUIRE=true"], &[]);
        check(
            &["NVIDIA_REQUIRE_CUDA=cuda>=99", "NVIDIA_DISABLE_REQUIRE=false"],
            &[("NVIDIA_REQUIRE_CUDA", "cuda>=99")],
        );
    }

    #[test]
    fn every_gpu_must_do() {
        let mixed = host("12.4", "550.1", &[("9.0", "NVIDIA H100"), ("6.1", "NVIDIA GeForce GTX 1080")]);
        let unmet = check("arch>=7.0 cuda>=13.0,arch>=6.0", &mixed).unwrap_err();
        let expected = Unmet {
            wanted: "arch>=7.0".into(),
            others: 1,
            has: "CUDA 12.4, driver 550.1, compute capability 6.1, NVIDIA GeForce GTX 1080".into(),
        };
        assert_eq!(unmet, expected);
    }

    #[test]
    fn a_driver_tells_its_cuda() {
        for (driver, cuda) in
            [("550.54.15", Some("12.4")), ("470.256.02", Some("11.4")), ("999.1", None), ("x", None)]
        {
            assert_eq!(cuda_of_driver(driver), cuda, "{driver}");
        }
    }

    #[test]
    fn models_have_brands() {
        for (model, brand) in [
            ("NVIDIA A100-SXM4-80GB", "tesla"),
            ("Tesla V100-SXM2-16GB", "tesla"),
            ("NVIDIA GeForce RTX 4090", "geforce"),
            ("NVIDIA RTX A6000", "nvidiartx"),
            ("Quadro RTX 6000", "quadrortx"),
            ("NVIDIA TITAN V", "titan"),
        ] {
            assert_eq!(brand_of(model), brand, "{model}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(value in "(cuda|driver|arch|brand|x|[0-9.]{1,4}|[<>=!]{1,2}|[ ,]){0,20}") {
            let all_met = check(&value, &host("99", "999", &[("99", "NVIDIA H100")])).is_ok();
            // An alternative that holds makes any requirement hold.
            prop_assert!(check(&(value.clone() + " cuda>=1"), &host("99", "999", &[])).is_ok());
            prop_assert!(all_met || check(&value, &HostCuda::default()).is_ok());
        }
    }
}
