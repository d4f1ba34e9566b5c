//! Whether Azure and the control planes of the AKS add-on ended as they should: a pure function, as in `check`.

use meshupgrade_e2e::{SOURCE, TARGET};

use crate::cloud::{Plane, Planes, SharedConfig, Write};

/// What was seen of Azure and the control planes.
#[derive(Clone, Debug, Default)]
pub struct CloudStory {
    /// Before the run.
    pub before: Planes,
    /// When the first wave began; nothing, if it never did.
    pub middle: Option<Planes>,
    /// After the run.
    pub after: Planes,
    /// What Azure accepted.
    pub writes: Vec<Write>,
}

/// Everything that is wrong, in words, where the run ends on this revision.
pub fn faults(revision: &str, story: &CloudStory) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(planes_faults("before the run", &[SOURCE], &story.before));
    match &story.middle {
        Some(middle) => found.extend(planes_faults("in the middle", &[SOURCE, TARGET], middle)),
        None => found.push("no wave was ever seen".to_owned()),
    }
    found.extend(planes_faults("at the end", &[revision], &story.after));
    found.extend(config_faults(revision, story));
    found.extend(write_faults(revision, &story.writes));
    found
}

/// Azure and the cluster have these revisions, and nothing of another one.
fn planes_faults(when: &str, wanted: &[&str], seen: &Planes) -> Vec<String> {
    let mut found = Vec::new();
    if seen.azure.revisions != wanted || seen.azure.state != "Succeeded" {
        found.push(format!("{when} Azure has {}, not {}", seen.azure.told(), wanted.join(" ")));
    }
    let missing = wanted.iter().filter(|name| !seen.planes.get(**name).is_some_and(Plane::is_whole));
    found.extend(missing.map(|name| format!("{when} {name} is not whole: {:?}", seen.planes.get(*name))));
    let others = seen.planes.iter().filter(|(name, _)| !wanted.contains(&name.as_str()));
    let left = others.filter(|(_, plane)| !plane.is_gone());
    found.extend(left.map(|(name, plane)| format!("{when} {name} is still there: {plane:?}")));
    found
}

/// The users' configuration stays as it is. The target has a copy while it has a control plane.
fn config_faults(revision: &str, story: &CloudStory) -> Vec<String> {
    let of = |planes: &Planes, name: &str| planes.planes.get(name).and_then(|plane| plane.config.clone());
    let users = of(&story.before, SOURCE).filter(|config| !config.copied);
    let copy = users.clone().map(|users| SharedConfig { copied: true, ..users });
    let mut wanted = vec![("at the end", SOURCE, of(&story.after, SOURCE), users.clone())];
    if let Some(middle) = &story.middle {
        wanted.push(("in the middle", TARGET, of(middle, TARGET), copy.clone()));
    }
    wanted.push(("at the end", TARGET, of(&story.after, TARGET), copy.filter(|_| revision == TARGET)));
    let mut found: Vec<String> = wanted
        .into_iter()
        .filter(|(_, _, seen, wanted)| seen != wanted)
        .map(|(when, name, seen, _)| {
            format!("{when} the shared mesh configuration of {name} is not what it should be: {seen:?}")
        })
        .collect();
    if users.is_none() {
        found.push("there was no shared mesh configuration to copy".to_owned());
    }
    found
}

/// Two writes, the second of which leaves the revision of the end, and neither of which changes more than the revisions.
fn write_faults(revision: &str, writes: &[Write]) -> Vec<String> {
    let mut found = Vec::new();
    let asked: Vec<&[String]> = writes.iter().map(|write| write.revisions.as_slice()).collect();
    if asked != [&[SOURCE.to_owned(), TARGET.to_owned()][..], &[revision.to_owned()]] {
        found.push(format!("the writes that Azure accepted are {asked:?}"));
    }
    let loose = writes.iter().filter(|write| !write.tied || !write.foreign.is_empty());
    found.extend(
        loose.map(|write| format!("a write is not tied to what was read, or changed more: {write:?}")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AzureSight, Ready};

    fn planes(revisions: &[&str], configs: &[(&str, bool)]) -> Planes {
        let azure = AzureSight {
            revisions: revisions.iter().map(ToString::to_string).collect(),
            state: "Succeeded".into(),
        };
        let mut all = Planes { azure, ..Planes::default() };
        for name in revisions {
            let (istiod, gateways) = (Ready { ready: 1, wanted: 1 }, Ready { ready: 3, wanted: 3 });
            all.planes.insert((*name).into(), Plane { istiod, gateways, webhook: true, config: None });
        }
        for (name, copied) in configs {
            let config = SharedConfig { text: "a: b".into(), copied: *copied };
            all.planes.entry((*name).into()).or_default().config = Some(config);
        }
        all
    }

    fn write(revisions: &[&str]) -> Write {
        let revisions = revisions.iter().map(ToString::to_string).collect();
        Write { revisions, tied: true, foreign: Vec::new() }
    }

    fn upgraded() -> CloudStory {
        CloudStory {
            before: planes(&[SOURCE], &[(SOURCE, false)]),
            middle: Some(planes(&[SOURCE, TARGET], &[(SOURCE, false), (TARGET, true)])),
            after: planes(&[TARGET], &[(SOURCE, false), (TARGET, true)]),
            writes: vec![write(&[SOURCE, TARGET]), write(&[TARGET])],
        }
    }

    #[test]
    fn a_good_end_has_no_fault() {
        assert!(faults(TARGET, &upgraded()).is_empty());
        let back = CloudStory {
            after: planes(&[SOURCE], &[(SOURCE, false)]),
            writes: vec![write(&[SOURCE, TARGET]), write(&[SOURCE])],
            ..upgraded()
        };
        assert!(faults(SOURCE, &back).is_empty());
        assert!(!faults(TARGET, &back).is_empty());
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let found = |change: fn(&mut CloudStory)| {
            let mut story = upgraded();
            change(&mut story);
            let found = faults(TARGET, &story);
            assert_eq!(found.len(), 1, "{found:#?}");
            found.concat()
        };
        assert!(found(|s| s.after.azure.state = "Updating".into()).contains("Updating"));
        assert!(found(|s| s.after.azure.revisions.push(SOURCE.into())).contains("asm-1-28 asm-1-27"));
        assert!(found(|s| s.middle = None).contains("no wave"));
        assert!(found(|s| plane(s, TARGET).gateways.ready = 2).contains("is not whole"));
        assert!(found(|s| plane(s, SOURCE).webhook = true).contains("is still there"));
        assert!(found(|s| plane(s, SOURCE).config = None).contains("configuration of asm-1-27"));
        assert!(found(|s| plane(s, TARGET).config = None).contains("configuration of asm-1-28"));
        assert!(found(|s| s.writes.push(write(&[TARGET]))).contains("accepted are"));
        assert!(found(|s| drop(s.writes.pop())).contains("accepted are"));
        assert!(found(|s| s.writes[0].tied = false).contains("not tied"));
        assert!(found(|s| s.writes[1].foreign.push("/tags".into())).contains("/tags"));
    }

    fn plane<'a>(story: &'a mut CloudStory, name: &str) -> &'a mut Plane {
        story.after.planes.get_mut(name).unwrap()
    }
}
