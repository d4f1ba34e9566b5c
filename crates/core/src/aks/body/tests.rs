use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn cluster() -> Value {
    json!({
        "id": "/subscriptions/s/c", "name": "c", "type": "t", "location": "westeurope", "eTag": "e",
        "systemData": {"createdBy": "x"}, "tags": {"id": "kept", "eTag": "kept"},
        "identity": {"type": "UserAssigned", "principalId": "p", "tenantId": "t", "userAssignedIdentities": {
            "/subscriptions/s/a~b": {"clientId": "c", "principalId": "p", "future": 1}}},
        "future": {"deep": [{"er": [null, 1.5, "x"]}]},
        "properties": {
            "provisioningState": "Succeeded", "powerState": {"code": "Running"}, "kubernetesVersion": "1.31",
            "currentKubernetesVersion": "1.31.7", "status": {"provisioningError": {}, "future": 1},
            "agentPoolProfiles": [{
                "name": "nodepool1", "count": 3, "provisioningState": "Succeeded", "powerState": {"code": "Running"},
                "nodeImageVersion": "AKSUbuntu-1", "currentOrchestratorVersion": "1.31.7", "eTag": "e",
                "spotMaxPrice": -1.0, "future": {"eTag": "kept"}}],
            "addonProfiles": {"a": {"enabled": true, "identity": {}, "config": {"identity": "kept"}}},
            "serviceMeshProfile": {"mode": "Istio", "future": true, "istio": {
                "revisions": ["asm-1-27"], "future": [1],
                "components": {"ingressGateways": [{"enabled": true, "mode": "Internal", "provisioningState": "kept"}]},
                "certificateAuthority": {"plugin": {"keyVaultId": "v"}}}},
            "futureProfile": {"provisioningState": "kept"},
        },
    })
}

fn revisions(names: &[&str]) -> Vec<Revision> {
    names.iter().map(|name| Revision::from(*name)).collect()
}

fn body(get: &Value) -> Value {
    with_revisions(get, &revisions(&["asm-1-27", "asm-1-28"])).unwrap()
}

/// Every leaf and every empty container with its path.
fn leaves(value: &Value) -> BTreeMap<Vec<String>, Value> {
    fn walk(value: &Value, path: &mut Vec<String>, leaves: &mut BTreeMap<Vec<String>, Value>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect()
            }
            _ => Vec::new(),
        };
        if children.is_empty() {
            leaves.insert(path.clone(), value.clone());
        }
        for (key, value) in children {
            path.push(key);
            walk(value, path, leaves);
            path.pop();
        }
    }
    let mut leaves_found = BTreeMap::new();
    walk(value, &mut Vec::new(), &mut leaves_found);
    leaves_found
}

fn is_below_read_only(path: &[String]) -> bool {
    READ_ONLY.iter().any(|pattern| {
        path.len() >= pattern.len()
            && pattern.iter().zip(path).all(|(pattern, key)| *pattern == "*" || pattern == key)
    })
}

#[test]
fn the_body_has_other_revisions_and_lacks_what_is_read_only() {
    let body = body(&cluster());
    assert_eq!(
        body,
        json!({
            "location": "westeurope", "tags": {"id": "kept", "eTag": "kept"},
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/s/a~b": {"future": 1}}},
            "future": {"deep": [{"er": [null, 1.5, "x"]}]},
            "properties": {
                "kubernetesVersion": "1.31", "status": {"future": 1},
                "agentPoolProfiles": [{
                    "name": "nodepool1", "count": 3, "powerState": {"code": "Running"},
                    "spotMaxPrice": -1.0, "future": {"eTag": "kept"}}],
                "addonProfiles": {"a": {"enabled": true, "config": {"identity": "kept"}}},
                "serviceMeshProfile": {"mode": "Istio", "future": true, "istio": {
                    "revisions": ["asm-1-27", "asm-1-28"], "future": [1],
                    "components": {"ingressGateways": [
                        {"enabled": true, "mode": "Internal", "provisioningState": "kept"}]},
                    "certificateAuthority": {"plugin": {"keyVaultId": "v"}}}},
                "futureProfile": {"provisioningState": "kept"},
            },
        })
    );
    assert_eq!(assert_only_revisions_differ(&cluster(), &body), Ok(()));
}

#[test]
fn every_read_only_field_is_left_out_wherever_it_is() {
    for path in READ_ONLY {
        let mut get = cluster();
        let mut place = &mut get;
        for (index, key) in path.iter().enumerate() {
            let next_is_any = path.get(index + 1) == Some(&ANY);
            let key = if *key == ANY { "any" } else { key };
            let map = place.as_object_mut().unwrap();
            // Maps stand for lists as well here: the path decides.
            if next_is_any || !map.contains_key(key) {
                map.insert(key.to_owned(), json!({}));
            }
            place = map.get_mut(key).unwrap();
        }
        *place = json!("read-only");
        let body = body(&get);
        assert!(!body.to_string().contains("read-only"), "{path:?}");
        assert_eq!(assert_only_revisions_differ(&get, &body), Ok(()), "{path:?}");
    }
}

#[test]
fn a_list_that_says_nothing_is_refused() {
    for names in [&[][..], &[""], &["asm-1-27", ""], &["asm-1-27", "asm-1-27"]] {
        assert_eq!(with_revisions(&cluster(), &revisions(names)), Err(BodyError::Revisions), "{names:?}");
    }
}

#[test]
fn a_cluster_that_lacks_something_is_refused() {
    for pointer in [
        "/location",
        "/properties/kubernetesVersion",
        "/properties/serviceMeshProfile/mode",
        "/properties/serviceMeshProfile/istio",
        "/properties/serviceMeshProfile/istio/revisions",
    ] {
        for nothing in [None, Some(json!(null)), Some(json!(""))] {
            let mut get = cluster();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = get.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            match &nothing {
                None => drop(parent.remove(key)),
                Some(value) => drop(parent.insert(key.to_owned(), value.clone())),
            }
            let refused = with_revisions(&get, &revisions(&["asm-1-28"]));
            assert_eq!(refused, Err(BodyError::Missing(pointer)), "{nothing:?}");
        }
    }
    let mut get = cluster();
    get["properties"]["serviceMeshProfile"]["mode"] = json!("Disabled");
    let refused = with_revisions(&get, &revisions(&["asm-1-28"]));
    assert_eq!(refused, Err(BodyError::NotIstio("Disabled".to_owned())));
    get["properties"]["serviceMeshProfile"]["mode"] = json!("istio");
    assert!(with_revisions(&get, &revisions(&["asm-1-28"])).is_ok());
}

#[test]
fn the_check_names_each_difference() {
    for (pointer, value, named) in [
        ("/location", json!("northeurope"), "/location"),
        ("/tags/new", json!(1), "/tags/new"),
        ("/properties/agentPoolProfiles", json!([]), "/properties/agentPoolProfiles"),
        ("/properties/agentPoolProfiles/0/count", json!(4), "/properties/agentPoolProfiles/*/count"),
        ("/properties/addonProfiles/a~1b", json!(1), "/properties/addonProfiles/a~1b"),
        ("/properties/serviceMeshProfile/mode", json!("istio"), "/properties/serviceMeshProfile/mode"),
        ("/properties/kubernetesVersion", json!(null), "/properties/kubernetesVersion"),
        // Read-only fields may be missing, not changed.
        ("/properties/fqdn", json!("x"), "/properties/fqdn"),
        (
            "/properties/serviceMeshProfile/istio/revisions",
            json!([]),
            "/properties/serviceMeshProfile/istio/revisions",
        ),
        (
            "/properties/serviceMeshProfile/istio/revisions",
            json!([1]),
            "/properties/serviceMeshProfile/istio/revisions",
        ),
    ] {
        let mut put = body(&cluster());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match put.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.insert(key.replace("~1", "/"), value)),
            other => panic!("{other}"),
        }
        assert_eq!(assert_only_revisions_differ(&cluster(), &put), Err(vec![named.to_owned()]));
    }
    let mut put = body(&cluster());
    put["properties"].as_object_mut().unwrap().remove("futureProfile");
    put["properties"]["serviceMeshProfile"]["istio"].as_object_mut().unwrap().remove("revisions");
    assert_eq!(
        assert_only_revisions_differ(&cluster(), &put).unwrap_err(),
        ["/properties/futureProfile", "/properties/serviceMeshProfile/istio/revisions"]
    );
    assert_eq!(assert_only_revisions_differ(&cluster(), &json!(null)), Err(vec![String::new()]));
    for (parent, key) in [
        ("/properties/agentPoolProfiles/0/future", "eTag"),
        ("/properties/serviceMeshProfile/istio/components/ingressGateways/0", "mode"),
        ("/properties/addonProfiles/a/config", "identity"),
        ("/tags", "id"),
    ] {
        let mut put = body(&cluster());
        put.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        let named = format!("{parent}/{key}").replace("/0", "/*");
        assert_eq!(assert_only_revisions_differ(&cluster(), &put), Err(vec![named]));
    }
}

/// Any JSON, often with keys that are read-only somewhere.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "[a-zA-Z~/*]{0,6}",
        prop::sample::select(READ_ONLY.iter().flat_map(|path| path.iter().copied()).collect::<Vec<_>>())
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts all of `extra` into `base`, where `base` has nothing.
fn merge(base: &mut Value, extra: &Value) {
    if let (Value::Object(base), Value::Object(extra)) = (base, extra) {
        for (key, value) in extra {
            match base.get_mut(key) {
                Some(base) => merge(base, value),
                None => drop(base.insert(key.clone(), value.clone())),
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_else_changes(
        outer in any_json(), properties in any_json(), pool in any_json(), addons in any_json(), istio in any_json(),
    ) {
        let mut get = json!({
            "location": "l", "properties": {
                "kubernetesVersion": "1.31", "serviceMeshProfile": {"mode": "Istio", "istio": {"revisions": ["asm-1-27"]}}}});
        merge(&mut get["properties"]["serviceMeshProfile"]["istio"], &istio);
        merge(&mut get["properties"], &json!({"agentPoolProfiles": [pool, {}], "addonProfiles": addons}));
        merge(&mut get["properties"], &properties);
        merge(&mut get, &outer);

        let put = body(&get);
        prop_assert_eq!(assert_only_revisions_differ(&get, &put), Ok(()));
        let at_revisions = |path: &[String]| path.iter().take(4).eq(REVISIONS.iter());
        let (mut before, mut after) = (leaves(&get), leaves(&put));
        before.retain(|path, _| !is_below_read_only(path) && !at_revisions(path));
        after.retain(|path, _| !at_revisions(path));
        // A map of which only read-only fields were set is empty afterwards.
        after.retain(|path, value| before.contains_key(path) || *value != json!({}));
        prop_assert_eq!(before, after);
    }

    #[test]
    fn one_change_anywhere_is_found(extra in any_json(), choice in any::<prop::sample::Index>()) {
        let mut get = cluster();
        merge(&mut get["properties"], &json!({"extra": extra}));
        let put = body(&get);
        let paths: Vec<Vec<String>> = leaves(&put).into_keys().filter(|path| !path.iter().take(4).eq(REVISIONS.iter())).collect();
        let path = &paths[choice.index(paths.len())];
        let mut changed = put;
        let place = path.iter().fold(&mut changed, |value, key| match value {
            Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
            value => &mut value[key],
        });
        *place = json!("changed by the test");
        prop_assert!(assert_only_revisions_differ(&get, &changed).is_err(), "{:?}", path);
    }
}
