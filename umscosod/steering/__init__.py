"""Examples steer a group: what a person shows of a few images corrects the maps of all."""
