#!/bin/sh
# Writes the patch for Argo CD's ConfigMap argocd-cm from the scripts beside this one to standard output.
set -eu
cd "$(dirname "$0")"

# A file as a block of YAML, so far to the right.
block() {
    sed -e '/./s/^/'"$(printf "%$1s" "")"'/' "$2"
}

cat <<'END'
# Generated from the Lua scripts beside this file (make generate): do not edit.
# kubectl patch configmap argocd-cm --namespace argocd --patch-file config/argo-cd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
data:
  resource.customizations.health.meshupgrade.io_MeshUpgrade: |
END
block 4 health.lua
cat <<'END'
  resource.customizations.actions.meshupgrade.io_MeshUpgrade: |
    discovery.lua: |
END
block 6 actions/discovery.lua
echo '    definitions:'
for name in approve pause resume rollback retry; do
    echo "      - name: $name"
    echo '        action.lua: |'
    block 10 "actions/$name/action.lua"
done
