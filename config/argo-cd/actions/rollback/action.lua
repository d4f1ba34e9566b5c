-- Sets the annotation to what status offers: its id names the step that is meant, so that it counts for no other.
if obj.status ~= nil and obj.status.actions ~= nil then
  for _, offer in ipairs(obj.status.actions) do
    if offer.action == "rollback" then
      if obj.metadata.annotations == nil then
        obj.metadata.annotations = {}
      end
      obj.metadata.annotations["meshupgrade.io/action"] = offer.value
      return obj
    end
  end
end
error("status.actions does not offer rollback now")
