#!/bin/sh
# Writes the generated files below a directory (default: the repository): the CustomResourceDefinition, its copy in the
# chart, and the chart's objects for kustomize. HELM names the helm program.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root}
helm=${HELM:-helm}
chart=charts/meshupgrade-operator

crdgen() {
    cargo run --quiet --locked --manifest-path "$root/Cargo.toml" --package meshupgrade-api --bin crdgen -- "$@"
}

# The chart of this repository with its defaults, without what only Helm needs.
render() {
    "$helm" template meshupgrade-operator "$root/$chart" --namespace meshupgrade-system --show-only "$@" |
        sed -e '/^ *helm.sh\/chart: /d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^# Source: /d'
}

mkdir -p "$out/config/crd" "$out/config/rbac" "$out/config/admission" "$out/config/manager" "$out/$chart/templates"
crdgen >"$out/config/crd/meshupgrades.meshupgrade.io.yaml"
crdgen --chart >"$out/$chart/templates/crd.yaml"
render templates/serviceaccount.yaml >"$out/config/rbac/service_account.yaml"
render templates/rbac.yaml >"$out/config/rbac/roles.yaml"
render templates/admission.yaml >"$out/config/admission/policies.yaml"
render templates/deployment.yaml >"$out/config/manager/deployment.yaml"
render templates/service.yaml >"$out/config/manager/service.yaml"
mkdir -p "$out/config/argo-cd"
"$root/config/argo-cd/generate.sh" >"$out/config/argo-cd/argocd-cm.yaml"
