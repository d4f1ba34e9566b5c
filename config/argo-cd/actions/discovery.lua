-- The actions of a MeshUpgrade: those that its status offers are enabled.
local actions = {}
for _, name in ipairs({"approve", "pause", "resume", "rollback", "retry"}) do
  actions[name] = {disabled = true}
end
if obj.status ~= nil and obj.status.actions ~= nil then
  for _, offer in ipairs(obj.status.actions) do
    actions[offer.action] = {disabled = false}
  end
end
return actions
