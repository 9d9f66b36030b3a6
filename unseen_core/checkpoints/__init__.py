"""Published checkpoint formats; every one gives a ``UNet2DModel`` and its noise schedule.

``loading`` opens whatever was published, ``architecture`` says what files leave out. Beneath:
``reading`` (tensors out of a file, no code), ``ddpm`` and ``openai`` (one family each, on
``translation``), ``network`` (the U-Net, as the other stages load it again).
"""
