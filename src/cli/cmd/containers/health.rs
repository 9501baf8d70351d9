//! The flags and the image's words about a container's health.

use serde_json::Value;

use crate::cli::args::ProcessArgs;
use crate::cli::failure::Failure;
use crate::oci::amend::nanoseconds;
use crate::runtime::HealthCheck;

/// How the health is looked after: by the flags, field by field over what the image says. `image` is its raw config, where
/// that counts.
pub(super) fn check(args: &ProcessArgs, image: Option<&[u8]>) -> Result<Option<HealthCheck>, Failure> {
    if args.no_healthcheck {
        return Ok(None);
    }
    let image = image.and_then(|raw| serde_json::from_slice::<Value>(raw).ok());
    let of_image =
        image.as_ref().and_then(|config| config.pointer("/config/Healthcheck")).and_then(of_config);
    let Some(mut check) = (match &args.health_cmd {
        Some(command) => Some(HealthCheck {
            test: vec!["CMD-SHELL".into(), command.clone()],
            ..of_image.unwrap_or_else(|| HealthCheck::new(Vec::new()))
        }),
        None => of_image,
    }) else {
        return Ok(None);
    };
    for (flag, text, place) in [
        ("--health-interval", &args.health_interval, &mut check.interval_ns),
        ("--health-timeout", &args.health_timeout, &mut check.timeout_ns),
        ("--health-start-period", &args.health_start_period, &mut check.start_period_ns),
        ("--health-start-interval", &args.health_start_interval, &mut check.start_interval_ns),
    ] {
        if let Some(text) = text {
            *place = nanoseconds(text).ok_or_else(|| {
                Failure::new(
                    format!("`{flag} {text}` is no duration"),
                    "write for example 30s, 1m30s or 500ms",
                )
            })?;
        }
    }
    check.retries = args.health_retries.unwrap_or(check.retries);
    Ok(Some(check))
}

/// The `Healthcheck` of an image config: a field that is missing or 0 has its default, and `NONE` is none.
fn of_config(value: &Value) -> Option<HealthCheck> {
    let test: Vec<String> = serde_json::from_value(value.get("Test")?.clone()).ok()?;
    if test.first().is_none_or(|kind| kind == "NONE") {
        return None;
    }
    let mut check = HealthCheck::new(test);
    for (name, place) in [
        ("Interval", &mut check.interval_ns),
        ("Timeout", &mut check.timeout_ns),
        ("StartPeriod", &mut check.start_period_ns),
        ("StartInterval", &mut check.start_interval_ns),
    ] {
        let number = value.get(name).and_then(Value::as_u64).filter(|number| *number > 0);
        *place = number.unwrap_or(*place);
    }
    let retries = value.get("Retries").and_then(Value::as_u64).filter(|count| *count > 0);
    check.retries = retries.and_then(|count| u32::try_from(count).ok()).unwrap_or(check.retries);
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ProcessArgs {
        ProcessArgs {
            pid: None,
            init: false,
            health_cmd: None,
            health_interval: None,
            health_timeout: None,
            health_retries: None,
            health_start_period: None,
            health_start_interval: None,
            no_healthcheck: false,
        }
    }

    #[test]
    fn flags_go_over_the_image_field_by_field() {
        let image = br#"{"config":{"Healthcheck":{"Test":["CMD","x"],"Interval":5000000000,"Retries":7}}}"#;
        let of_image = check(&args(), Some(image)).unwrap().unwrap();
        assert_eq!(
            (of_image.interval_ns, of_image.retries, of_image.timeout_ns),
            (5_000_000_000, 7, 30_000_000_000)
        );
        assert_eq!(of_image.test, ["CMD", "x"]);
        let flags = ProcessArgs {
            health_cmd: Some("y".into()),
            health_interval: Some("500ms".into()),
            health_retries: Some(1),
            ..args()
        };
        let mixed = check(&flags, Some(image)).unwrap().unwrap();
        assert_eq!(
            (mixed.test, mixed.interval_ns, mixed.retries),
            (vec!["CMD-SHELL".into(), "y".into()], 500_000_000, 1)
        );
        assert_eq!(check(&args(), None).unwrap(), None);
        assert_eq!(check(&args(), Some(br#"{"config":{"Healthcheck":{"Test":["NONE"]}}}"#)).unwrap(), None);
        let none = ProcessArgs { no_healthcheck: true, ..args() };
        assert_eq!(check(&none, Some(image)).unwrap(), None);
        let wrong = ProcessArgs { health_cmd: Some("y".into()), health_timeout: Some("5".into()), ..args() };
        assert!(check(&wrong, None).is_err());
    }
}
