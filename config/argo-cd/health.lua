-- Health of a MeshUpgrade for Argo CD, from conditions that follow kstatus. No library is needed but the base one: Argo CD
-- gives scripts of argocd-cm no other.
local health = {status = "Progressing", message = "the operator has not looked at it yet"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local is, reason = {}, {}
for _, condition in ipairs(obj.status.conditions) do
  is[condition.type] = condition.status
  if condition.status == "True" then
    reason[condition.type] = condition.reason
  end
end
health.message = obj.status.message
if is["Ready"] == "True" then
  health.status = "Healthy"
elseif is["Ready"] == "False" or is["Stalled"] == "True" then
  -- Also while it goes back: an Application must not be called healthy on the way to a revision that Git does not name.
  health.status = "Degraded"
elseif is["Paused"] == "True" then
  health.status = "Suspended"
elseif reason["Reconciling"] == "OutsideWindow" or reason["Reconciling"] == "RevisionNotFound"
  or reason["Reconciling"] == "RemovalPending" then
  -- The last two wait for whoever installs and removes control planes.
  health.status = "Suspended"
end
return health
