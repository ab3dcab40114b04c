"""`import jaxrl_seq.gym` makes every environment known to gymnasium: `gym.make("jaxrl_seq/TMaze-v0", length=50)`.

gymnasium 1.x finds no plugins by itself. Without the import, name the module:
`gym.make("jaxrl_seq.gym:jaxrl_seq/TMaze-v0", length=50)`.
"""

from jaxrl_seq.envs.adapters.to_gymnasium import register_gymnasium

register_gymnasium()
