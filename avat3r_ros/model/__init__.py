"""Reference views to an avatar: the Avat3r network and its base guess."""
