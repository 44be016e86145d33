"""The tables of ggml's IQ types: which small groups of magnitudes a code may stand for.

Source: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h (``iq2xxs_grid``, ``iq3xxs_grid``,
``iq3s_grid``).
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def _grid(packed: str, width: int) -> Bytes:
    """Indices of magnitudes, uint8 [codes, width], from two in a byte, the lower half first."""
    pairs = np.frombuffer(base64.b85decode(packed), np.uint8)
    return np.stack([pairs & 0xF, pairs >> 4], axis=-1).reshape(-1, width)


IQ2_XXS_GRID = _grid(
    "000000ssI25dZ)HAOHXWA^-"
    "pY0RaF25CH%H00IC20s;U4AOZjYA_4#a0T2KH5D)+W01*HHAQ1on0TKWJ5E1|Y03ZMW0w4eYA|L<&0wMqa0RRC25C8!H009925di@J01yEH5"
    "Fh~nARz$&000620ssO40s;a60w4ka0RRvH5C9MW009sH0Rj*J5CRYY01yxW0uT@YAP^7$01^-"
    "Y0U!_n5Fii$03i?n5F!u&000pH0ss*JAOH~n00I#J5)cspArcV)03Z<n0U;3pApjBp009yJ01y%Y5Fio&5F!!)001BW5da_nAOIi$5CI?nAO"
    "au&0T3Vn5D*{$01+Sn0udkpARr(B5C9<n01zPn0stZa5CI|p0RR925C8xH009620RjL401yBH01^NJ5Fh{n03iSY5g`Bp00032AOHaY00IF4"
    "01*KJA`t-"
    "r03ZPY5CQ@L5fB0a000mHAOH{n00IyJ5dshaArKG&03Z+nAOR5p0um7c000sJ5&;qc0RSKY5C9+n00AHY01zMn0U#g&001EY5da|p03sm)0T"
    "Chr000020ssI4A^-pa5D)+Y0TKWL03ZMY0w4eaAp!vcAP@lp000640ssO60RRvJ5C9MY009sJ01yxY5)lvr000pJ0T2-"
    "a5E2mr03i|rAOIi&00JNa5FsD}5D+2)0RR9H5C8xW0096HAOQdn0RjLJ5CQ-"
    "Y01yBWAP@i$5)l9p01^NY0U!Vn5Fh{$03iSn0003H00IFJ0TKZa03ZPn5g-"
    "8&0RRFJ009CJAP@o&5)lFrAQA!)000mWAOH{$00IyY03Z+$At4YD0s#>a5CRbp000sY0RSKn5C9+$00AHn01zM$5fC5{001EnAQ2%D0TLk)0"
    "w5s}5fCB}03jj}0000HAOHXn0RaFJAprmp00ICJ03ZMnARqt{5C8!Y0uTWa5F!B)0U-"
    "hr03i?&0wE9)A^;H)0RR#a5D^j)001Bn0RbQpApsx}5E38}01zP&AOIo}5C8xY0096J01yBYAQAu)0003J5fK3rAOQjr01^Tc000mY5daVp0"
    "09va0s#>c5Fil}0uUe)0000W0ssIYA^-p&0T2Kn0w4e&5C8!nAOQg&01yEn0RaLa0RRvn5C9M$009sn5djb&01yx$01^-"
    "&000pn5)cs}5FrsDApjB}01y%&01^@)0stT&5C9<{0RbW)5C8xn0096Y5CQ-"
    "p01yBn0U`h)5&;1r03ZP&5fB0)000mn0s;^r5D*X{0TB@)0U#hD00JQ)0ssIa01*Hp5g-5}Apij)0006aAOR2}01+S}5C9<}",
    width=8,
)
"""[256, 8]"""
IQ3_XXS_GRID = _grid(
    "000621OO2L695+gAOIo&F#tjUa{zS!0RaO65CIYaAps=;Faa_FK><_&Z~*`U0s;gA5dt6rA_6f2GXggPQ36*2bpinc2LliT5(6aza03$rHv~"
    "ikR|Inebp!zg2L&<(QUx^zWCjoi6bBXuLkD380T2Ta5D*d&ArK=FFc2~jG!RD+P!IqS0ud1rAQ2)F0TKfe5E2p+ArdeWauNU&0uvw;F%w1;W"
    ")lGv1r$&eAQdDPMip@t1r{O~Ko<ZY0w56}6CfZUA|NIpF(5)90U-k+1tAb25+NZWFd<_hXCZJQ03re+5h52NAR;0nHzGhHRU!c+5F-"
    ">La3gdhH6&9c10^RVK_zr00Ve||7AHj~0Wc6S5-"
    "=e!BQQ`fWiWCu05JkFATcp9L@`D&0Wt$J5Hck)QZjNf5i>J0Ff>Orax?%n1~nozRW%egHa256GdEy21V9%+H9$8&Q$SZhbU`3OH$p%{U_xd>"
    "2SY_e1Vm9pWJD!JLq%{!1xFA^5=Ssc5>P=<a8LkI22mzaRZ$dDGE#C<0#j2{5L6>nCscA&0#z|pP*x;YLRTbUL|{f>WMCm-"
    "VPO|yWMVL5He*C&1!YoYGiC#4A!h?{1#ky&5O6YZQg9}5KyeasMRHPd0CN>{Gjm{bA#_1>0CfU&By})$",
    width=4,
)
"""[256, 4]"""
IQ3_S_GRID = _grid(
    "000310ssX72LKQN5dabZ6aW?gAOIl%B>*!3KmbAjMF2+tQ2<i_U;ttOaR77xcK`qZ0RaL51OX5M5djqeAORx*Cjl`5H338cVF6_UasdDW0Rj"
    "aA2LccR69N_jAp#`=Fak6JLIOnsM*>j-Qvz@Ta{>bc5d#$iAOj);F#|ILHUmThPy<o}X9IBqbprqd69g9oAp|4@G6X;bLj+L-"
    "a0CJc1O*@kA_XP|GX+5fMFmF%W(9Kv1_luZ69zE`QU-Ab00#mG1P34oA_pc1GY3!yR0jYM0T2QZ1P~Aq5fBp)6%ZE?AP^!DF%UEmHV{-"
    "0RuEwjau5I!0TBZc1`!Yu6cHg2FcC8mK@m_9QW0<wb`by)5)u^>7ZM;6BoZ<bKoUa|RT5wlauNX(1QQ1n5EBy<ArmJPFcUNrK@(yVa1#R*1r"
    "!n#6cjNOGZaD;MifvKR1^Uf5ET;@Ar&wcG8Iu3AQmJRCl*8&Miv1V0~Zh%5*HyCH5Wk_Vi#~103ZP%10V$;2Otn25+D>H79b%YBOoUrFd#A@"
    "K_EjQMIcZhQXpp_a3FIabszvC0wE9~6CoENA|WLqF(EV|LLpHh0U`t<2O=RNBO)*&HzGkIQzBO)aUygg03!k;1tSq7A|oUtF(Wf0LL*QkW+M"
    "S42P7aQBP22;H6%eKawK&m1SJtAA|*E^KqXTpa3ugH0wxD0AtqHOVI~D95ho@mFegJNP$vQ~5ik=l6)+btA}}#9GcYwULNG)yM=((^V=!?r0"
    "WkwH1u+ycAu%H{Krvu3axr!>05TFXATlyCG%`>!0W%OY6f+?+BQqy6Ff&0jLo-"
    "J+RWoxl12hpd7BnI>F*H&%U^HYj0W}ac5;Y|?GBrdsRyA`q7B)dP0XG9TAU7g6H8%i21V9o%AV4HQCqOblK|oMIa6ke<2SE`*6G0+DFhMmzL"
    "qSnNRY3tl140l&6+$6GGeST@S3+V!a6$w_5knJ0AVVTUF+(*&07L>rBt$nvKtypw1w{u%Aw^<E6Gk*fU`7x}6-"
    "O{fLq}0Z0#Fc86i^~iKu|<bM^I8wW>9oc0Z{`{1yK@FAyG0>a!~+M5mF;kFj6*BQ&Iv`2U8GJCsRaIQB!48b5j9S1XLhYGE_!X5>+NuQB_k_"
    "LRJD-"
    "1Xm(g5nvNw6<{%7Ghkp~0AV0uCt+k^5@IxBLSj{7Vq$P&0AmzmA!9&eC1gWnVq^ei17$R2U}XhnKxPqV6K4Q$1aJp%AaEjZHgG_2RB&Q&0&x"
    "*>BymG=MR5Ug1ac5^7IGnSFmh3H0&_BRHFHyQ0dxg)6LcVSP;?@7LUjUmF?IlV",
    width=4,
)
"""[512, 4]"""
